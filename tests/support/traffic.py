"""People and CI machines at work while something happens to a fleet: pushes and reads without a pause.

Promises: each block ends its work before it returns; what went wrong is kept for the test to judge.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hgfleet.adapters.haproxy_config import STALE_HEADER
from tests.support.clients import Outcome
from tests.support.fleet import Fleet
from tests.support.repositories import WorkingCopy

_PAUSE_SECONDS = 0.05


@dataclass
class Reads:
    """What one reader was shown, in order."""

    seqs: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stale: int = 0  # answers of the last resort

    def assert_fine(self, least: int = 1) -> None:
        """No read has failed, and none went back (R2)."""
        assert not self.failures, self.failures[:5]
        assert len(self.seqs) >= least, "the reader had nothing to do"
        assert self.seqs == sorted(self.seqs), self.seqs


@dataclass
class Pushes:
    """What one pusher was told, in order."""

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def assert_fine(self, least: int = 1) -> None:
        """Every push was accepted."""
        assert not [outcome for outcome in self.outcomes if outcome.status], self.outcomes
        assert len(self.outcomes) >= least, "the pusher had nothing to do"


@contextlib.contextmanager
def reading(fleet: Fleet, path: str) -> Iterator[Reads]:
    """Ask for a repository through the load balancer all the time."""
    reads = Reads()
    url = fleet.https_url(f"{path}?cmd=heads")

    def read() -> None:
        try:
            reply = fleet.fetch(url)
        except OSError as error:
            reads.failures.append(repr(error))
            return
        if reply.status == 200 and STALE_HEADER.lower() in reply.headers:
            reads.stale += 1  # it says that it may be older than what was shown before
        elif reply.status == 200:
            reads.seqs.append(int(reply.headers["x-hgfleet-seq"]))
        else:
            reads.failures.append(f"{reply.status} {reply.body[:200]!r}")

    with _again_and_again(read):
        yield reads


@contextlib.contextmanager
def pushing(fleet: Fleet, work: WorkingCopy, path: str) -> Iterator[Pushes]:
    """Commit and push to a repository all the time."""
    pushes = Pushes()

    def push() -> None:
        work.commit(f"push {len(pushes.outcomes)}")
        started = time.monotonic()
        pushes.outcomes.append(work.push(fleet.ssh_url(path)))
        pushes.seconds.append(time.monotonic() - started)

    with _again_and_again(push):
        yield pushes


@contextlib.contextmanager
def _again_and_again(step: Callable[[], None]) -> Iterator[None]:
    over = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not over.is_set():
                step()
                over.wait(_PAUSE_SECONDS)
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]
