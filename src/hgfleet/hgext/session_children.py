"""The forked children of the session server: started clean, watched, reaped.

Promises: a child holds none of the parent's sockets or descriptors, only those of its job and one that leads
to the log; it starts with default signals, in a session of its own, and dies with the parent. A child that
was told to hang up is killed after the grace; one past its append deadline is killed at once. Nothing that
goes wrong in a child is written to its standard streams, which belong to the client.
Does not: know what a child does.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hgfleet.hgext.session_connection import Connection
from hgfleet.hgext.session_context import SessionPage
from hgfleet.runtime import clock

REPLY_DESCRIPTOR = 4  # of a child: where Job.reply is
_LOG_DESCRIPTOR = 3
_OUT_OF_THE_WAY = 64
_PR_SET_PDEATHSIG = 1
_INTERNAL_ERROR = 70
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
_libc = ctypes.CDLL(None)
_log = logging.getLogger("hgfleet.sessions")


@dataclass(frozen=True, slots=True)
class Job:
    """What a child does: `run` returns its exit status; `streams` become 0, 1 and 2, `reply` is optional."""

    run: Callable[[SessionPage], int]
    streams: tuple[int, int, int]
    description: dict[str, Any]
    reply: int | None = None


@dataclass(slots=True)
class Child:
    """A running child and the connection that waits for its end."""

    pid: int
    connection: Connection
    page: SessionPage
    description: dict[str, Any]
    started_at: float = field(default_factory=clock.now)
    kill_at: float | None = None  # monotonic: when the grace after a hang-up ends
    is_overdue: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A child that has ended; `status` is 128 + n for a signal."""

    child: Child
    status: int
    cpu_seconds: float
    recorded: tuple[int, int]  # how many changes the log accepted from it, and the seq of the last one


class Children:
    """All children of this process; `forget_parent` is called first in each child."""

    def __init__(self, forget_parent: Callable[[], None]) -> None:
        self._forget_parent = forget_parent
        self._child_by_pid: dict[int, Child] = {}

    def __len__(self) -> int:
        return len(self._child_by_pid)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._child_by_pid.values()))

    def start(self, job: Job, connection: Connection) -> Child:
        """Fork a child for the job. Raises OSError when it can't."""
        page = SessionPage()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            page.close()
            raise
        if pid == 0:
            self._run(job, page, parent)
        child = Child(pid, connection, page, job.description)
        self._child_by_pid[pid] = child
        return child

    def of(self, connection: Connection) -> Child | None:
        """Return the child whose end this connection waits for."""
        return next((child for child in self if child.connection is connection), None)

    def hang_up(self, child: Child, grace_seconds: float, number: int = signal.SIGHUP) -> None:
        """Tell a child to end; it is killed after the grace."""
        if child.kill_at is None:
            child.kill_at = clock.monotonic() + grace_seconds
            _signal(child.pid, number)

    def enforce(self) -> list[Child]:
        """Kill whoever is over its time; return those newly found past an append deadline."""
        now = clock.monotonic()
        overdue = [child for child in self if not child.is_overdue and child.page.is_over(now)]
        for child in overdue:
            child.is_overdue = True
        for child in self:
            if child.is_overdue or (child.kill_at is not None and now > child.kill_at):
                _signal(child.pid, signal.SIGKILL)
        return overdue

    def reap(self) -> Iterator[Ended]:
        """Yield each child that has ended."""
        while self._child_by_pid:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._child_by_pid.pop(pid)
            recorded = child.page.recorded
            child.page.close()
            code = os.waitstatus_to_exitcode(status)
            yield Ended(child, code if code >= 0 else 128 - code, used.ru_utime + used.ru_stime, recorded)

    def _run(self, job: Job, page: SessionPage, parent: int) -> NoReturn:
        """Be the child; the outermost frame of it."""
        status = _INTERNAL_ERROR
        try:
            self._forget_parent()
            _become_child(job, parent)
            status = job.run(page)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            _log.exception("session.crashed", extra=job.description)
        finally:
            os._exit(status)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _become_child(job: Job, parent: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_INTERNAL_ERROR)
    _keep_only(job)
    _log_only_to(_LOG_DESCRIPTOR)


def _keep_only(job: Job) -> None:
    """Put the job's descriptors and the log at their places and close every other one."""
    sources = [*job.streams, 2] if job.reply is None else [*job.streams, 2, job.reply]
    aside = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for source in sources]
    for target, source in enumerate(aside):
        os.dup2(source, target, inheritable=target < _LOG_DESCRIPTOR)
    os.closerange(len(aside), max(int(name) for name in os.listdir("/proc/self/fd")) + 1)


def _log_only_to(descriptor: int) -> None:
    """Replace the parent's log handlers: they write to what is the client's now, or is closed."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(os.fdopen(descriptor, "w", closefd=False))
    if logging.root.handlers:
        handler.setFormatter(logging.root.handlers[0].formatter)
    logging.root.handlers = [handler]
