"""Looks at the copies of repositories on a fleet's hosts while they change.

Promises: reads the small files that hosts replace by rename (docs/design/local-protocols.md), so a look costs
the measured processes next to nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.model.ids import RepoId
from hgfleet.model.settings import RepoSettings
from hgfleet.model.state import last_record
from tests.support.fleet import Fleet

_APPLIED = Path("current/.hg/store/hgfleet-seq")
_EXPOSED = Path("current/.hg/hgfleet-exposed")
_POLL_SECONDS = 0.0005
_CALL_SECONDS = 30.0


def agent_of(fleet: Fleet) -> LogAgentClient:
    """Return a client of the fleet's log agent."""
    return LogAgentClient((fleet.directory / "run").resolve() / "log-agent.sock", _CALL_SECONDS)


def repository_id(fleet: Fleet, path: str) -> RepoId:
    """Return the id of the repository at a path."""
    with agent_of(fleet) as agent:
        return agent.resolve(path).repository


def create_quickly(fleet: Fleet, path: str) -> str:
    """Create a repository without a process for it and without waiting for mirrors; return its path."""
    settings = RepoSettings(writers=("developers",)).to_json()
    with agent_of(fleet) as agent:
        agent.create(path, settings, identity="bench", trace="bench")
    return path


def applied_file(fleet: Fleet, host: str, repository: RepoId) -> Path:
    """Return the file that says up to where a host's copy is."""
    return fleet.directory / "hosts" / host / "repos" / repository / _APPLIED


def exposed_file(fleet: Fleet, host: str, repository: RepoId) -> Path:
    """Return the file that says up to where a host shows its copy."""
    return fleet.directory / "hosts" / host / "repos" / repository / _EXPOSED


def read_seq(path: Path) -> int:
    """Return the seq that a file names; 0 where there is none yet."""
    try:
        return int(json.loads(last_record(path.read_bytes()))["seq"])
    except (FileNotFoundError, NotADirectoryError):
        return 0


def wait_for_seqs(seq_by_file: dict[Path, int], deadline_seconds: float, explain: Callable[[], str]) -> None:
    """Block until each file names its seq or a later one; raise AssertionError at the deadline."""
    ends_at = time.monotonic() + deadline_seconds
    waiting = list(seq_by_file)
    while waiting := [path for path in waiting if read_seq(path) < seq_by_file[path]]:
        assert time.monotonic() < ends_at, f"{len(waiting)} copies are late\n{explain()}"
        time.sleep(_POLL_SECONDS)


@dataclass(slots=True)
class Watch:
    """Notes, in a thread, when each file first names each seq; to half a millisecond."""

    files: Sequence[Path]
    seen_at_by_seq: list[dict[int, float]] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self.seen_at_by_seq = [{} for _ in self.files]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        known: list[tuple[int, int, int] | None] = [None for _ in self.files]
        while not self._is_over.wait(_POLL_SECONDS):
            for place, path in enumerate(self.files):
                now = _identity(path)
                if now != known[place]:
                    known[place] = now
                    self.seen_at_by_seq[place].setdefault(read_seq(path), time.perf_counter())

    def first_seen(self, place: int, seq: int) -> float:
        """Return when a file first named this seq or a later one."""
        return min(at for known, at in self.seen_at_by_seq[place].items() if known >= seq)


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
