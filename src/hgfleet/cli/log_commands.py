"""`hgfleet log`: look at the replication log.

Promises: reading never changes anything; a message that cannot be read is shown as such, not skipped.
Does not: judge which messages of a partition count: with a repository's path only those that do are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from hgfleet.adapters.agent_answers import Advanced, LogSnapshot, MessageBatch, RawRecord
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.adoption import find_lost
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.errors import PoisonError
from hgfleet.model.ids import CATALOGUE, RepoId, Seq, parse_repo_path
from hgfleet.model.message import Message, Topic, decode_message


@click.group("log")
def log_group() -> None:
    """Look at the replication log."""


@log_group.command("show")
@click.argument("path", required=False)
@click.option("--topic", type=click.Choice([t.value for t in Topic]), default="pushdata", help="which topic")
@click.option("--partition", type=int, help="one partition only")
@fleet_options
@json_option
def show_log(path: str | None, topic: str, partition: int | None, fleet: Fleet, *, as_json: bool) -> None:
    """Show the messages of the repository at PATH, or every record of a topic."""
    with fleet.agent() as agent:
        if path is not None:
            rows = repository_messages(agent, path)
        else:
            rows = topic_records(agent, Topic(topic), partition)
        if as_json:
            print_json(list(rows))
            return
        for row in rows:
            click.echo(_format(row))


@log_group.command("adopt")
@fleet_options
@json_option
def report_lost(fleet: Fleet, *, as_json: bool) -> None:
    """Report repositories of which the log has less than a copy, and which copy has most."""
    with fleet.agent() as agent:
        lost = find_lost(fleet.layout, agent)
    if as_json:
        print_json([asdict(found) for found in lost])
    elif not lost:
        click.echo("no copy is ahead of the log")
    else:
        rows = [(f.path or "?", f.repository, f.log_seq, f.seq, f.host, ",".join(f.others)) for f in lost]
        print_table(("path", "repository", "log seq", "copy seq", "copy", "to be built anew"), rows)


@log_group.command("tail")
@click.argument("path", required=False)
@fleet_options
def tail_log(path: str | None, fleet: Fleet) -> None:
    """Print messages as they are accepted, of the repository at PATH or of all, until interrupted."""
    with fleet.agent() as agent:
        wanted = agent.resolve(parse_repo_path(path)).repository if path else None
        seq_by_repository: dict[RepoId, Seq] = {}
        with agent.follow() as events:
            for event in events:
                if isinstance(event, LogSnapshot):
                    seq_by_repository = {name: repo.seq for name, repo in event.repositories.items()}
                    seq_by_repository[CATALOGUE] = event.catalogue_seq
                elif wanted in (None, event.repository):
                    _print_advance(agent, event, seq_by_repository)


def repository_messages(agent: LogAgentClient, path: str) -> Iterator[dict[str, Any]]:
    """Yield the messages that count of the repository at a path, from the first."""
    repository = agent.resolve(parse_repo_path(path)).repository
    return _messages_after(lambda seq: agent.read(repository, seq), 0)


def topic_records(agent: LogAgentClient, topic: Topic, partition: int | None) -> Iterator[dict[str, Any]]:
    """Yield every record of a topic's partitions, one partition after another."""
    count = agent.hello().partitions if topic is Topic.PUSHDATA else 1
    for number in [partition] if partition is not None else range(count):
        yield from _records(agent, topic, number)


def _records(agent: LogAgentClient, topic: Topic, partition: int) -> Iterator[dict[str, Any]]:
    offset = 0
    while records := agent.records(topic, partition, offset):
        for record in records:
            offset = record.next_offset
            yield {"partition": partition, "offset": record.offset, **_describe_record(topic, record)}


def _describe_record(topic: Topic, record: RawRecord) -> dict[str, Any]:
    if topic is Topic.STATE:
        return {"key": record.key, "value": record.value.decode("utf-8", "replace"), "at": record.at}
    try:
        return _describe(decode_message(record.value))
    except PoisonError as error:
        return {"damaged": str(error), "size_bytes": len(record.value), "at": record.at}


def _messages_after(read: Callable[[int], MessageBatch], seq: int) -> Iterator[dict[str, Any]]:
    while messages := read(seq).messages:
        for message in messages:
            yield _describe(decode_message(message.wire))
            seq = message.seq


def _describe(message: Message) -> dict[str, Any]:
    envelope = message.envelope
    return {
        "seq": envelope.seq,
        "kind": envelope.kind.value,
        "repository": envelope.repository,
        "epoch": envelope.epoch,
        "at": envelope.at,
        "identity": envelope.identity,
        "trace": envelope.trace,
        "parent": envelope.parent,
        "digest": message.digest,
        "body": dict(envelope.body),
        "payload": {
            "size_bytes": envelope.payload.size_bytes,
            "sha256": envelope.payload.sha256,
            "is_inline": envelope.payload.is_inline,
        },
    }


def _format(row: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(row["at"], UTC).isoformat(timespec="milliseconds")
    if "key" in row:
        return f"{at}  {row['offset']:>6}  {row['key']}  {row['value']}"
    if "damaged" in row:
        return f"{at}  {row['offset']:>6}  damaged: {row['damaged']}"
    size = row["payload"]["size_bytes"]
    return (
        f"{at}  {row['repository'][:12]}  seq {row['seq']:>5}  epoch {row['epoch']:>3}  "
        f"{row['kind']:<8}  {row['identity']}  {size} bytes"
    )


def _print_advance(agent: LogAgentClient, event: Advanced, seq_by_repository: dict[RepoId, Seq]) -> None:
    name = event.repository
    before = seq_by_repository.get(name, event.seq - 1)
    seq_by_repository[name] = event.seq
    read = agent.catalogue if name == CATALOGUE else lambda seq: agent.read(name, seq)
    for row in _messages_after(read, before):
        click.echo(_format(row))
