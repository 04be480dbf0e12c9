"""A forked child of the session server, from the fork to its exit: clean, quiet, one request.

Its request reaches it through a socket, so that it can be forked before there is one: memory that parent and
child share is copied page by page at the first write, which is half of a short session's work, and a child
that is warmed up in advance has that behind it.

Promises: a child holds none of the parent's sockets or descriptors, only those of its request, one that leads
to the log and its own end of that socket; it starts with default signals, in a session of its own, and dies
with the parent. Nothing that goes wrong in it is written to its standard streams, which belong to the client.
It tells its status as soon as it has closed those: the kernel takes milliseconds more to end a process.
Does not: keep account of children (session_children), or know what a request asks for.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from hgfleet.hgext import session_context
from hgfleet.hgext.session_context import SessionPage

_LOG, _CONTROL = 3, 4  # a child's descriptors beside 0, 1 and 2
_OUT_OF_THE_WAY = 64
_MOST_DESCRIPTORS = 3
_STATUS = struct.Struct("i")
_MOST_REQUEST_BYTES = 1024 * 1024
_PR_SET_PDEATHSIG = 1
_INTERNAL_ERROR = 70
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)
_libc = ctypes.CDLL(None)
_log = logging.getLogger("hgfleet.sessions")

Header = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """What a child does: `run` returns its exit status; `streams` become 0, 1 and 2."""

    run: Callable[[SessionPage], int]
    streams: tuple[int, int, int]


class Work(Protocol):
    """What the children of a server can do."""

    def warm_up(self) -> None:
        """Touch what nearly every request needs; called in a child that waits for one."""

    def make(self, header: Header, descriptors: Sequence[int]) -> Job:
        """Return the job that a request asks for; called in the child, which owns the descriptors."""


class Forked:
    """The parent's end of a child."""

    def __init__(self, pid: int, page: SessionPage, control: socket.socket) -> None:
        control.setblocking(False)
        self.pid = pid
        self.page = page
        self.control = control  # readable when the child has told its status, or died without

    def hand_over(self, header: Header, descriptors: Sequence[int]) -> None:
        """Give it its request. Raises OSError when it is dead, or did not take it."""
        socket.send_fds(self.control, [json.dumps(header).encode()], list(descriptors))

    def take_status(self) -> int | None:
        """Return the exit status that the child has told, None when it died without."""
        try:
            data = self.control.recv(_STATUS.size)
        except OSError:
            return None
        return int(_STATUS.unpack(data)[0]) if data else None

    def close(self) -> None:
        """Forget the child; one that has no request ends."""
        self.page.close()
        self.control.close()


def fork(work: Work, forget_parent: Callable[[], None], *, is_early: bool) -> Forked:
    """Fork a child that waits for its request, warming up before it if it is early. Raises OSError."""
    page = SessionPage()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        for half in (page, ours, theirs):
            half.close()
        raise
    if pid == 0:
        ours.detach()
        _be_child(work, forget_parent, _Origin(parent, page, theirs.detach()), is_early=is_early)
    theirs.close()
    return Forked(pid, page, ours)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a child has from its parent."""

    parent: int
    page: SessionPage
    control: int


def _be_child(work: Work, forget_parent: Callable[[], None], origin: _Origin, *, is_early: bool) -> NoReturn:
    """Be the child; the outermost frame of it."""
    status = _INTERNAL_ERROR
    try:
        forget_parent()
        _start_clean(origin.parent)
        _keep_only(origin.control)
        if is_early:
            work.warm_up()
        request = _receive()
        status = 0 if request is None else _run(work, origin.page, *request)
    except BaseException:
        _log.exception("session.crashed")
    finally:
        _tell_status(status)
        _finish()
        os._exit(status)


def _finish() -> None:
    """Do what nobody waits for: the client is gone, and what goes wrong now is for the log only."""
    try:
        session_context.do_what_was_put_off()
    except BaseException:
        _log.exception("session.unfinished")


def _start_clean(parent: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(_INTERNAL_ERROR)


def _keep_only(control: int) -> None:
    """Put what a child keeps at its place and close every other descriptor."""
    _put({_LOG: 2, _CONTROL: control})
    os.closerange(_CONTROL + 1, max(int(name) for name in os.listdir("/proc/self/fd")) + 1)
    _log_only_to(_LOG)


def _put(source_by_target: dict[int, int]) -> None:
    """Make each target what its source is now, whatever the targets were."""
    aside = {
        target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
        for target, source in source_by_target.items()
    }
    for target, source in aside.items():
        os.dup2(source, target, inheritable=target < _LOG)
        os.close(source)


def _log_only_to(descriptor: int) -> None:
    """Replace the parent's log handlers: they write to what will be the client's."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(os.fdopen(descriptor, "w", closefd=False))
    if logging.root.handlers:
        handler.setFormatter(logging.root.handlers[0].formatter)
    logging.root.handlers = [handler]


def _receive() -> tuple[Header, list[int]] | None:
    """Wait for the request; None when there will be none."""
    with _control() as control:
        data, descriptors, _, _ = socket.recv_fds(
            control, _MOST_REQUEST_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
    return (json.loads(data), descriptors) if data else None


@contextmanager
def _control() -> Iterator[socket.socket]:
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=_CONTROL)
    try:
        yield control
    finally:
        control.detach()


def _run(work: Work, page: SessionPage, header: Header, descriptors: list[int]) -> int:
    job = work.make(header, descriptors)
    _put(dict(enumerate(job.streams)))
    for descriptor in set(descriptors) & set(job.streams):
        os.close(descriptor)
    status = job.run(page)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _tell_status(status: int) -> None:
    """Let go of the client's streams, then tell the parent, which may pass it on at once."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    _put(dict.fromkeys((0, 1, 2), null))  # not closed: what is opened now must not become one of them
    with suppress(OSError), _control() as control:  # the parent may be gone
        control.send(_STATUS.pack(status))
