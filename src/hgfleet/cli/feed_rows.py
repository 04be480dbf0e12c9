"""The feed for people: its records as rows of `hgfleet log show` and `tail`.

Promises: `tail` prints what counts, once and in order; `show` prints every record as it lies there.
Does not: remember where somebody stopped reading (the notifier does).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.feed_stream import FeedStream
from hgfleet.errors import PoisonError
from hgfleet.model.feed_records import FeedEntry, Opening, decode_feed_record
from hgfleet.model.ids import parse_repo_path

Row = dict[str, Any]


def describe_feed_record(wire: bytes, at: float) -> Row:
    """Return a record's fields; what cannot be read is shown as such."""
    try:
        return _describe(decode_feed_record(wire), at)
    except PoisonError as error:
        return {"damaged": str(error), "size_bytes": len(wire), "at": at}


def follow_feed(agent: LogAgentClient, path: str | None) -> Iterator[Row]:
    """Yield what enters the feed from now on, of the repository at a path or of all; never ends by itself."""
    wanted = parse_repo_path(path) if path else None
    with FeedStream(agent) as entries:
        for counted in entries:
            if wanted in {None, counted.entry.path}:
                row = _describe(counted.entry, counted.entered_at)
                yield row | {"offset": counted.offset, "is_gap": counted.is_gap}


def format_feed_row(row: Row) -> str:
    """Return a row as one line, without time and offset."""
    turn = f"turn {row['turn']:>3}"
    if row["kind"] == "opening":
        return f"{turn}  opened by {row['host']}"
    if row["repository"].strip("0"):
        what = f"{row['path']} seq {row['seq']}"
    else:
        what = f"catalogue seq {row['seq']}"
    detail = _detail(row["body"])
    gap = "  (entries before it are missing)" if row.get("is_gap") else ""
    return f"{turn}  {what}  {row['kind']}  {row['identity']}{detail}{gap}"


def _detail(body: Row) -> str:
    """Return what people look for first: the push id and its heads, or the paths."""
    names = [str(body[name]) for name in ("path", "new_path") if body.get(name)]
    if body.get("push_id") is not None:
        heads = " ".join(str(node)[:12] for node in body.get("heads_added") or ())
        return f"  push {body['push_id']} by {body.get('pusher')}  {heads}".rstrip()
    return f"  {' -> '.join(names)}" if names else ""


def _describe(record: Opening | FeedEntry, at: float) -> Row:
    if isinstance(record, Opening):
        return {"kind": "opening", **asdict(record)}
    fields = {n: value for n, value in asdict(record).items() if n not in {"partition", "position"}}
    position = {"partition": record.partition, **asdict(record.position)}
    return fields | {"entered_at": at, "message_position": position}
