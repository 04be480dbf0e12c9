"""The children of the session server: forked, given their requests, watched, reaped.

Promises: a child that was told to hang up is killed after the grace; one past its append deadline is killed
at once, and one that has told its status and does not end, soon after. One child waits in advance for the
next request, forked when another has ended.
Does not: know what a child does (session_jobs), or be one (session_fork).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hgfleet.hgext import session_fork
from hgfleet.hgext.session_connection import Connection
from hgfleet.hgext.session_fork import Forked, Header, Work
from hgfleet.runtime import clock

PUT_OFF_SECONDS = 30.0  # for writing caches of a large repository


@dataclass(slots=True)
class Child:
    """A running child and the connection that waits for its end."""

    forked: Forked
    connection: Connection
    description: dict[str, Any]
    started_at: float = field(default_factory=clock.now)
    kill_at: float | None = None  # monotonic: when the grace after a hang-up ends
    is_overdue: bool = False
    status: int | None = None  # as soon as it has told it; the process may take a little longer to end

    @property
    def pid(self) -> int:
        """Its process."""
        return self.forked.pid

    @property
    def is_done(self) -> bool:
        """Whether its client has been answered, so that only what was put off is left."""
        return self.status is not None


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that has ended; `status` is 128 + n for a signal."""

    child: Child
    status: int
    cpu_seconds: float


class Children:
    """All children of this process; `forget_parent` is called first in each child."""

    def __init__(
        self, work: Work, forget_parent: Callable[[], None], put_off_seconds: float = PUT_OFF_SECONDS
    ) -> None:
        self._work = work
        self._forget_parent = forget_parent
        self._put_off_seconds = put_off_seconds
        self._child_by_pid: dict[int, Child] = {}
        self._spare: Forked | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._child_by_pid)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._child_by_pid.values()))

    def keep_spare(self) -> None:
        """See to it that one child waits for the next request; without it that one is only slower."""
        if self._spare is None and not self._is_closed:
            with suppress(OSError):
                self._spare = self._fork(is_early=True)

    def start(
        self, header: Header, descriptors: Sequence[int], description: dict[str, Any], connection: Connection
    ) -> Child:
        """Have a child work on a request; the descriptors stay the caller's. Raises OSError when none can."""
        child = Child(self._hand_over(header, descriptors), connection, description)
        self._child_by_pid[child.pid] = child
        return child

    def of(self, connection: Connection) -> Child | None:
        """Return the child whose end this connection waits for."""
        return next((child for child in self if child.connection is connection), None)

    def hang_up(self, child: Child, grace_seconds: float, number: int = signal.SIGHUP) -> None:
        """Tell a child to end; it is killed after the grace."""
        ends_at = clock.monotonic() + grace_seconds
        if child.kill_at is None:
            child.kill_at = ends_at
            _signal(child.pid, number)
        elif child.is_done:
            child.kill_at = min(child.kill_at, ends_at)

    def note_done(self, child: Child, status: int) -> None:
        """Keep the status that a child has told, and bound what it does after that."""
        child.status = status
        ends_at = clock.monotonic() + self._put_off_seconds
        child.kill_at = ends_at if child.kill_at is None else min(child.kill_at, ends_at)

    def enforce(self) -> list[Child]:
        """Kill whoever is over its time; return those newly found past an append deadline."""
        now = clock.monotonic()
        overdue = [child for child in self if not child.is_overdue and child.forked.page.is_over(now)]
        for child in overdue:
            child.is_overdue = True
        for child in self:
            if child.is_overdue or (child.kill_at is not None and now > child.kill_at):
                _signal(child.pid, signal.SIGKILL)
        return overdue

    def reap(self) -> Iterator[Ended]:
        """Yield each child that had a request and has ended; forget it when asked for the next."""
        for pid, code, cpu_seconds in _ended_processes():
            child = self._child_by_pid.pop(pid, None)
            if child is not None:
                yield Ended(child, code if code >= 0 else 128 - code, cpu_seconds)
                child.forked.close()
            elif self._spare is not None and self._spare.pid == pid:
                self._drop_spare()

    def close(self) -> None:
        """Have no child in advance any more."""
        self._is_closed = True
        self._drop_spare()

    def detach(self) -> None:
        """Forget everything, in a forked child, without closing."""
        forks = [child.forked for child in self]
        for forked in forks if self._spare is None else [*forks, self._spare]:
            forked.control.detach()

    def _hand_over(self, header: Header, descriptors: Sequence[int]) -> Forked:
        spare, self._spare = self._spare, None
        if spare is not None:
            with suppress(OSError):  # it has died since
                spare.hand_over(header, descriptors)
                return spare
            spare.close()
        forked = self._fork(is_early=False)
        forked.hand_over(header, descriptors)
        return forked

    def _fork(self, *, is_early: bool) -> Forked:
        return session_fork.fork(self._work, self._forget_parent, is_early=is_early)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.close()
            self._spare = None


def _ended_processes() -> Iterator[tuple[int, int, float]]:
    """Yield pid, exit status (-n for a signal) and CPU seconds of every process that has ended."""
    with suppress(ChildProcessError):  # there is none at all
        while (ended := os.wait4(-1, os.WNOHANG))[0]:
            pid, status, used = ended
            yield pid, os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
