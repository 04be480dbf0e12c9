"""The feed of a running fleet, as `hgfleet log show` prints it and as a reader counts it."""

from __future__ import annotations

from typing import Any

from hgfleet.model.feed import FeedReader, FeedVerdict
from hgfleet.model.feed_records import FeedEntry, FeedRecord, Opening
from hgfleet.model.ids import Offset, RepoId, Seq
from tests.support.fleet import Fleet

Row = dict[str, Any]


def feed_rows(fleet: Fleet) -> list[Row]:
    """Return every record, as it lies there."""
    rows: list[Row] = fleet.cli_json("log", "show", "--topic", "pushdataaggregator")
    return rows


def counted(rows: list[Row]) -> list[Row]:
    """Return the entries that a reader from the start counts; nothing may be missing."""
    reader = FeedReader()
    found = []
    for row in rows:
        verdict = reader.take(_record(row), Offset(row["offset"] + 1))
        assert verdict is not FeedVerdict.GAP, row
        if verdict is FeedVerdict.COUNTS:
            found.append(row)
    return found


def entered(fleet: Fleet, path: str) -> list[Row]:
    """Return what counts of the repository that has the path in the feed."""
    return [row for row in counted(feed_rows(fleet)) if row["path"] == path]


def check_complete(fleet: Fleet) -> None:
    """Check that each repository's entries are 1, 2, 3 …, once each, and are its messages."""
    rows = counted(feed_rows(fleet))
    for path in fleet.paths():
        messages = fleet.cli_json("log", "show", path)
        mine = [row for row in rows if row["path"] == path]
        told = [(row["seq"], row["digest"], row["trace"]) for row in mine]
        assert told == [(m["seq"], m["digest"], m["trace"]) for m in messages], path


def _record(row: Row) -> FeedRecord:
    if row["kind"] == "opening":
        return Opening(row["turn"], row["host"], row["life"], row["at"])
    return FeedEntry(
        turn=row["turn"],
        number=row["number"],
        repository=RepoId(row["repository"]),
        seq=Seq(row["seq"]),
        after=Seq(row["after"]),
        kind=row["kind"],
        path=row["path"],
        at=row["at"],
        body=row["body"],
    )
