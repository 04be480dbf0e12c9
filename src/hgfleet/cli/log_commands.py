"""`hgfleet log`: make and look at the replication log, and give it back what it has lost.

Promises: reading never changes anything, and `adopt` reports unless it is told to act; a message that
cannot be read is shown as such, not skipped.
Does not: judge which messages of a partition count: with a repository's path only those that do are shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from hgfleet.adapters.agent_answers import Advanced, LogSnapshot, MessageBatch, RawRecord
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.adopt_process import run_adopt
from hgfleet.cli.adoption import Lost, find_lost
from hgfleet.cli.feed_rows import describe_feed_record, follow_feed, format_feed_row
from hgfleet.cli.fleet import Fleet, Place, fleet_options, place_options
from hgfleet.cli.kafka_topics import create_kafka_topics, describe_difference
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.cli.process_command import process_command
from hgfleet.config.load import load_config
from hgfleet.errors import ConfigError, PoisonError, RejectedError, TransientError
from hgfleet.model.ids import CATALOGUE, RepoId, Seq, parse_repo_path
from hgfleet.model.message import Message, Topic, decode_message


@click.group("log")
def log_group() -> None:
    """Make and look at the replication log, and give it back what it has lost."""


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


@log_group.command("tail")
@click.argument("path", required=False)
@click.option(
    "--topic",
    type=click.Choice([Topic.PUSHDATA.value, Topic.FEED.value]),
    default=Topic.PUSHDATA.value,
    help="messages as they are accepted, or the feed: once every mirror shows them",
)
@click.option("--json", "as_json", is_flag=True, help="print one JSON value per line")
@fleet_options
def tail_log(path: str | None, topic: str, fleet: Fleet, *, as_json: bool) -> None:
    """Print messages as they are accepted, of the repository at PATH or of all, until interrupted."""
    form = partial(json.dumps, ensure_ascii=False, default=str) if as_json else _format
    with fleet.agent() as agent:
        if topic == Topic.FEED:
            for row in follow_feed(agent, path):
                click.echo(form(row))
            return
        wanted = agent.resolve(parse_repo_path(path)).repository if path else None
        seq_by_repository: dict[RepoId, Seq] = {}
        with agent.follow() as events:
            for event in events:
                if isinstance(event, LogSnapshot):
                    seq_by_repository = {name: repo.seq for name, repo in event.repositories.items()}
                    seq_by_repository[CATALOGUE] = event.catalogue_seq
                elif wanted in (None, event.repository):
                    for row in _advance(agent, event, seq_by_repository):
                        click.echo(form(row))


@log_group.command("create")
@place_options
@json_option
def create_log(place: Place, *, as_json: bool) -> None:
    """Make the topics that Kafka lacks, and say how existing ones differ from what they should be.

    What exists is never changed; run again it makes nothing. An embedded log is made by the first start.
    """
    config = load_config(place.config_path)
    created, differences = create_kafka_topics(config)
    if as_json:
        print_json({"created": created, "differences": [asdict(difference) for difference in differences]})
    else:
        for name in created:
            click.echo(f"made {name}")
        if not created:
            click.echo("every topic is there")
        for difference in differences:
            click.echo(f"{describe_difference(difference)}; to mend it: {difference.mend}")
    if differences:
        raise ConfigError(
            "log.differs", "topics of the log are not as they should be", topics=len(differences)
        )


@log_group.command("lag")
@fleet_options
@json_option
def show_lag(fleet: Fleet, *, as_json: bool) -> None:
    """Show how far each host is behind in each partition, and the repositories that are farthest behind.

    A partition's lag counts records from the first that one of the host's copies lacks; with Kafka it is what
    the host's consumer group has committed, as any lag tool shows it.
    """
    with fleet.agent() as agent:
        lag = agent.lag()
    if as_json:
        print_json({"partitions": lag["partitions"], "repositories": lag["repositories"]})
        return
    keys = ("host", "partition", "offset", "end", "lag", "epoch")
    print_table(keys, [[row[key] for key in keys] for row in lag["partitions"]])
    if lag["repositories"]:
        click.echo()
        rows = [(row["path"] or row["repository"], row["lag"], row["applied"]) for row in lag["repositories"]]
        print_table(("repository", "lag", "newest seq"), rows)


@log_group.command("adopt")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--yes", is_flag=True, help="do it")
@fleet_options
@json_option
def adopt_copies(paths: tuple[str, ...], fleet: Fleet, *, yes: bool, as_json: bool) -> None:
    """Report the repositories whose copies are ahead of the log, and append their state with --yes.

    All of them, or those at the given PATHs.
    """
    with fleet.agent() as agent:
        found = [lost for lost in find_lost(fleet.layout, agent) if not paths or lost.path in paths]
        adopted = adopt_all(fleet, agent, found) if yes else {}
    if as_json:
        print_json([lost.to_json() | {"adopted_seq": adopted.get(lost.repository)} for lost in found])
    else:
        _print_lost(found, adopted)


def adopt_all(fleet: Fleet, agent: LogAgentClient, found: list[Lost]) -> dict[RepoId, int]:
    """Adopt each; return the seqs of the resets."""
    if not agent.hello().is_serving:
        raise TransientError("log.not-serving", "this host does not accept changes", hint="try again soon")
    effective = fleet.layout.effective_config
    config_path = effective if effective.exists() else fleet.place.config_path
    command = process_command(
        "adopt", config=config_path, directory=fleet.place.directory, name="adopt", host=fleet.host
    )
    adopted = {lost.repository: run_adopt(command, lost) for lost in found if lost.adopt is not None}
    for repository in adopted:
        partition = agent.last(repository).partition
        with fleet.sessions() as sessions:
            sessions.call("catch_up", repository=repository, partition=partition)
    return adopted


def _print_lost(found: list[Lost], adopted: dict[RepoId, int]) -> None:
    if not found:
        click.echo("no copy is ahead of the log")
        return
    rows = [
        (
            lost.path or lost.repository,
            lost.log_seq,
            ", ".join(f"{copy.host} {copy.seq} {copy.standing}" for copy in lost.copies),
            lost.adopt.host if lost.adopt else "-",
            f"done: {adopted[lost.repository]}" if lost.repository in adopted else _plan(lost),
        )
        for lost in found
    ]
    print_table(("repository", "log seq", "copies", "adopt", "append"), rows)
    if not adopted:
        click.echo("nothing was appended; --yes does it")


def _plan(lost: Lost) -> str:
    return lost.reason or ", ".join(lost.appends)


def repository_messages(agent: LogAgentClient, path: str) -> Iterator[dict[str, Any]]:
    """Yield the messages that count of the repository at a path, from the first."""
    repository = agent.resolve(parse_repo_path(path)).repository
    return _messages_after(lambda seq: agent.read(repository, seq), _first_seq(agent, repository) - 1)


def _first_seq(agent: LogAgentClient, repository: RepoId) -> int:
    """Return the seq of the first message that the log still has."""
    try:
        agent.read(repository, 0, max_bytes=1)
    except RejectedError as error:
        first = error.context.get("first_seq")
        if error.code != "log.overrun" or not isinstance(first, int):
            raise
        return first
    return 1


def topic_records(agent: LogAgentClient, topic: Topic, partition: int | None) -> Iterator[dict[str, Any]]:
    """Yield every record of a topic's partitions, one partition after another."""
    count = agent.hello().partitions if topic is Topic.PUSHDATA else 1
    for number in [partition] if partition is not None else range(count):
        yield from _records(agent, topic, number)


def _records(agent: LogAgentClient, topic: Topic, partition: int) -> Iterator[dict[str, Any]]:
    offset = _first_offset(agent, topic, partition)
    while records := agent.records(topic, partition, offset):
        for record in records:
            offset = record.next_offset
            yield {"partition": partition, "offset": record.offset, **_describe_record(topic, record)}


def _first_offset(agent: LogAgentClient, topic: Topic, partition: int) -> int:
    """Return where the partition begins: 0, or what retention has left."""
    try:
        agent.records(topic, partition, 0, max_bytes=1)
    except RejectedError as error:
        first = error.context.get("first_offset")
        if error.code != "log.overrun" or not isinstance(first, int):
            raise
        return first
    return 0


def _describe_record(topic: Topic, record: RawRecord) -> dict[str, Any]:
    if topic is Topic.FEED:
        return describe_feed_record(record.value, record.at)
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
    if "turn" in row:
        return f"{at}  {row['offset']:>6}  {format_feed_row(row)}"
    if "key" in row:
        return f"{at}  {row['offset']:>6}  {row['key']}  {row['value']}"
    if "damaged" in row:
        return f"{at}  {row['offset']:>6}  damaged: {row['damaged']}"
    size = row["payload"]["size_bytes"]
    return (
        f"{at}  {row['repository'][:12]}  seq {row['seq']:>5}  epoch {row['epoch']:>3}  "
        f"{row['kind']:<8}  {row['identity']}  {size} bytes"
    )


def _advance(
    agent: LogAgentClient, event: Advanced, seq_by_repository: dict[RepoId, Seq]
) -> Iterator[dict[str, Any]]:
    name = event.repository
    before = seq_by_repository.get(name, event.seq - 1)
    seq_by_repository[name] = event.seq
    read = agent.catalogue if name == CATALOGUE else lambda seq: agent.read(name, seq)
    return _messages_after(read, before)
