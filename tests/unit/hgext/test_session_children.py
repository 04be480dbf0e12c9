"""Children of the session server that do not end: real processes, forked here."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from hgfleet.hgext import session_context
from hgfleet.hgext.session_children import Child, Children
from hgfleet.hgext.session_connection import Connection
from hgfleet.hgext.session_context import SessionPage
from hgfleet.hgext.session_fork import Header, Job
from tests.support.waiting import wait_until


class PutsOff:
    """Work whose jobs are done at once and then, with the client gone, never end by themselves."""

    def __init__(self, began: Path) -> None:
        self._began = began

    def warm_up(self) -> None:
        """Touch nothing."""

    def make(self, header: Header, descriptors: Sequence[int]) -> Job:
        def run(page: SessionPage) -> int:
            session_context.watch(page)
            session_context.put_off("endless", self._hang)
            return int(header["status"])

        null = os.open(os.devnull, os.O_RDWR)
        return Job(run, (null, null, null))

    def _hang(self) -> None:
        self._began.touch()
        signal.pause()


Start = Callable[[Children], Child]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(children: Children) -> Child:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            connection = Connection(theirs)
            stack.callback(connection.close)
            return children.start({"status": 3}, [], {"op": "serve"}, connection)

        yield start


def finish(child: Child, children: Children) -> None:
    """Wait until the child has told its status."""
    child.forked.control.setblocking(True)
    status = child.forked.take_status()
    assert status == 3
    children.note_done(child, status)
    assert child.is_done


def test_what_a_child_put_off_is_ended_when_it_takes_too_long(tmp_path: Path, start: Start) -> None:
    children = Children(PutsOff(tmp_path / "began"), lambda: None, put_off_seconds=0.0)
    child = start(children)
    assert not child.is_done
    finish(child, children)
    wait_until((tmp_path / "began").exists, what="it does what it put off")

    assert children.enforce() == []
    ended = []
    wait_until(lambda: bool(ended.extend(children.reap()) or ended), what="the child is gone")
    assert [(one.child.pid, one.status) for one in ended] == [(child.pid, 128 + signal.SIGKILL)]
    assert len(children) == 0


def test_a_child_that_was_hung_up_gets_no_more_time_by_being_done(tmp_path: Path, start: Start) -> None:
    children = Children(PutsOff(tmp_path / "began"), lambda: None, put_off_seconds=3600.0)
    child = start(children)
    finish(child, children)
    first = child.kill_at
    assert first is not None
    child.kill_at = 0.0
    children.note_done(child, 3)
    assert child.kill_at == 0.0
    children.enforce()
    ended = []
    wait_until(lambda: bool(ended.extend(children.reap()) or ended), what="the child is gone")
