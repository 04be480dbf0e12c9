"""Which copies hold what the log has lost: the report of `hgfleet log adopt`.

A log can be lost, cut or restored from a backup. Copies that are ahead of it are left alone and refuse writes
(`log.behind`) until a person decides what to append again, and from which copy.

Promises: compares every copy of this machine with the log, message by message where it must; changes nothing.
Does not: append (hgext.adopt), or look at other machines.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hgfleet.adapters.agent_answers import LastMessage
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.copies import CopyState, read_copy
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import RejectedError
from hgfleet.model.ids import RepoId, parse_repo_id
from hgfleet.model.message import Kind, Message, decode_message

_BRIDGES = frozenset({Kind.CREATED, Kind.VOID})  # they carry nothing that a copy's state could lack


@dataclass(frozen=True, slots=True)
class Standing:
    """One copy against the log: `level`, `behind`, `ahead`, or `fork`: the log has another message there."""

    host: str
    seq: int
    digest: str
    standing: str


@dataclass(frozen=True, slots=True)
class Lost:
    """One repository of which the log has less than a copy; `path` is "" where nobody knows it."""

    path: str
    repository: RepoId
    partition: int
    log_seq: int
    copies: tuple[Standing, ...]
    adopt: Standing | None  # the copy to adopt; None: `reason` says why there is none
    is_known: bool  # the log has a path for it
    reason: str = ""

    @property
    def appends(self) -> list[str]:
        """What would be appended, in order."""
        if self.adopt is None:
            return []
        first = [] if self.is_known else ["bind"]
        created = [] if self.log_seq else ["created"]
        voids = max(self.adopt.seq - max(self.log_seq, 1), 0)
        return [*first, *created, *([f"{voids} void"] if voids else []), "reset"]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"appends": self.appends}


def find_lost(
    layout: FleetLayout, agent: LogAgentClient, known: Mapping[RepoId, str] | None = None
) -> list[Lost]:
    """Compare every copy with the log; the result is sorted by path. `known` are paths from elsewhere."""
    bound = {binding.repository: str(binding.path) for binding in agent.paths()[0]}
    paths = dict(known or {}) | _served_paths(layout) | _remembered_paths(agent) | bound
    found = [
        lost
        for repository, copies in _copies_by_repository(layout).items()
        if (lost := _compare(agent, repository, copies, paths, bound)) is not None
    ]
    return sorted(found, key=lambda lost: (lost.path, lost.repository))


def _copies_by_repository(layout: FleetLayout) -> dict[RepoId, list[CopyState]]:
    copies: dict[RepoId, list[CopyState]] = defaultdict(list)
    for host in layout.hosts:
        for repository in _repositories(host.repositories):
            copy = read_copy(host, repository, is_primary=host.name == layout.primary.name)
            if copy.seq:
                copies[repository].append(copy)
    return copies


def _repositories(directory: Path) -> Iterator[RepoId]:
    for path in sorted(directory.glob("*")):
        try:
            yield parse_repo_id(path.name)
        except RejectedError:
            continue


def _compare(
    agent: LogAgentClient,
    repository: RepoId,
    copies: list[CopyState],
    paths: dict[RepoId, str],
    bound: dict[RepoId, str],
) -> Lost | None:
    last = agent.last(repository)
    standings = tuple(_judge(agent, repository, copy, last) for copy in copies)
    best = max(
        (standing for standing in standings if standing.standing in {"ahead", "fork"}),
        key=lambda standing: standing.seq,  # the first of equals: the primary's
        default=None,
    )
    if best is None:
        return None
    path = paths.get(repository, "")
    reason = _obstacle(agent, repository, best, last, path)
    return Lost(
        path=path,
        repository=repository,
        partition=last.partition if last.partition is not None else copies[0].partition,
        log_seq=last.seq,
        copies=standings,
        adopt=None if reason else best,
        is_known=repository in bound,
        reason=reason,
    )


def _judge(agent: LogAgentClient, repository: RepoId, copy: CopyState, last: LastMessage) -> Standing:
    if copy.seq > last.seq:
        standing = "ahead"
    elif _digest_at(agent, repository, copy, last) != copy.digest:
        standing = "fork"
    else:
        standing = "level" if copy.seq == last.seq else "behind"
    return Standing(copy.host, copy.seq, copy.digest, standing)


def _obstacle(agent: LogAgentClient, repository: RepoId, best: Standing, last: LastMessage, path: str) -> str:
    """Return why the copy cannot be adopted, "" when it can."""
    if last.is_deleted:
        return "the log says that it was deleted"
    if last.parked:
        return f"its messages in the log cannot be read on: {last.parked}"
    if not path:
        return "nobody knows its path"
    if any(message.envelope.kind not in _BRIDGES for message in _messages(agent, repository, best.seq - 1)):
        return "the log has other changes than its copies"
    return ""


def _digest_at(agent: LogAgentClient, repository: RepoId, copy: CopyState, last: LastMessage) -> str:
    """Return the digest of the log's message at the copy's seq; the copy's own where retention removed it."""
    if copy.seq == last.seq:
        return last.digest
    try:
        return decode_message(agent.read(repository, copy.seq - 1, max_bytes=1).messages[0].wire).digest
    except RejectedError as error:
        if error.code != "log.overrun":
            raise
        return copy.digest


def _messages(agent: LogAgentClient, repository: RepoId, seq: int) -> Iterator[Message]:
    while messages := agent.read(repository, seq).messages:
        yield from (decode_message(message.wire) for message in messages)
        seq = messages[-1].seq


def _remembered_paths(agent: LogAgentClient) -> dict[RepoId, str]:
    """Return what the log agent remembers of logs before this one."""
    return {RepoId(lost["repository"]): str(lost["path"]) for lost in agent.status()["lost"]}


def _served_paths(layout: FleetLayout) -> dict[RepoId, str]:
    """Return what the mirrors serve."""
    rows = (row for mirror in layout.mirrors for row in _catalogue_rows(mirror.catalogue))
    return {RepoId(repository): path for path, repository in rows}


def _catalogue_rows(catalogue: Path) -> Iterable[tuple[str, str]]:
    if not catalogue.exists():
        return []
    with closing(sqlite3.connect(f"{catalogue.absolute().as_uri()}?mode=ro", uri=True)) as file:
        return list(file.execute("SELECT path, repository FROM paths"))
