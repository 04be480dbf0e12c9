"""Which copies hold what the log has lost: the report of `hgfleet log adopt`.

A log can be lost, cut or restored from a backup. Copies that are ahead of it, or that it contradicts, are
left alone and refuse writes (`log.behind`) until a person decides what to append again, and from which copy.

Promises: compares every copy of this machine with the log, message by message where it must; changes nothing.
Does not: append (hgext.adopt), or look at other machines.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.copies import CopyState, read_copy
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import RejectedError
from hgfleet.model.ids import RepoId, parse_repo_id
from hgfleet.model.message import decode_message


@dataclass(frozen=True, slots=True)
class Lost:
    """One repository of which the log has less than a copy; `path` is "" where nobody knows it."""

    repository: RepoId
    path: str
    log_seq: int
    host: str  # of the copy to adopt: the newest one, the primary's among equals
    seq: int  # at which that copy stands
    digest: str
    directory: str
    others: tuple[str, ...]  # hosts whose copies stand elsewhere and will be built anew


def find_lost(layout: FleetLayout, agent: LogAgentClient) -> list[Lost]:
    """Compare every copy with the log; the result is sorted by path."""
    paths = _known_paths(layout, agent)
    found = [
        lost
        for repository, copies in _copies_by_repository(layout).items()
        if (lost := _compare(agent, repository, copies, paths.get(repository, ""))) is not None
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


def _compare(agent: LogAgentClient, repository: RepoId, copies: list[CopyState], path: str) -> Lost | None:
    last = agent.last(repository)
    if last.is_deleted or all(_is_in_log(agent, repository, copy, last.seq) for copy in copies):
        return None
    best = max(copies, key=lambda copy: copy.seq)  # the first of equals: the primary's
    others = tuple(copy.host for copy in copies if copy.digest != best.digest)
    return Lost(repository, path, last.seq, best.host, best.seq, best.digest, best.path, others)


def _is_in_log(agent: LogAgentClient, repository: RepoId, copy: CopyState, log_seq: int) -> bool:
    """Tell whether the message that a copy applied last is the log's at that seq."""
    if copy.seq > log_seq:
        return False
    [message, *_] = agent.read(repository, copy.seq - 1, max_bytes=1).messages
    return decode_message(message.wire).digest == copy.digest


def _known_paths(layout: FleetLayout, agent: LogAgentClient) -> dict[RepoId, str]:
    """Return paths by repository: the mirrors' own catalogues, then the log's, which wins."""
    paths = {
        repository: path for mirror in layout.mirrors for path, repository in _served_paths(mirror.catalogue)
    }
    bound, _seq = agent.paths()
    return paths | {binding.repository: str(binding.path) for binding in bound}


def _served_paths(catalogue: Path) -> Iterable[tuple[str, RepoId]]:
    if not catalogue.exists():
        return []
    with closing(sqlite3.connect(f"{catalogue.absolute().as_uri()}?mode=ro", uri=True)) as file:
        return [
            (path, RepoId(repository))
            for path, repository in file.execute("SELECT path, repository FROM paths")
        ]
