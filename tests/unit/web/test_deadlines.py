"""Receiving has an end, however slowly somebody sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from hgfleet.errors import RejectedError
from hgfleet.web import requests
from hgfleet.web.deadlines import Deadlines
from hgfleet.web.requests import read_body, read_to_end

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def dripping(pair: Pair) -> Iterator[socket.socket]:
    """Return a socket on which a byte comes now and then, for ever."""
    ours, theirs = pair
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.01):
            try:
                theirs.send(b"x")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    yield ours
    stop.set()
    thread.join()


def environ(sock: socket.socket, length: int) -> dict[str, object]:
    return {
        "CONTENT_LENGTH": str(length),
        "gunicorn.socket": sock,
        "wsgi.input": sock.makefile("rb"),
    }


def test_what_drips_for_ever_reads_as_ended_and_can_still_be_answered(
    pair: Pair, dripping: socket.socket
) -> None:
    with Deadlines().within(lambda: dripping, 0.0) as watched:
        while dripping.recv(100):
            pass
        assert watched.is_over
    dripping.sendall(b"answer")
    assert pair[1].recv(6) == b"answer"


def test_what_was_received_in_time_is_left_alone(pair: Pair) -> None:
    ours, theirs = pair
    deadlines = Deadlines()
    with deadlines.within(lambda: ours, 3600.0) as watched:
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
    with deadlines.within(lambda: theirs, 0.0):  # something else is ended meanwhile
        assert theirs.recv(1) == b""
    theirs.sendall(b"y")
    assert ours.recv(1) == b"y"
    assert not watched.is_over


def test_arguments_that_come_a_byte_at_a_time_are_refused_with_408(
    dripping: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.0)
    monkeypatch.setattr(requests, "LEAST_BYTES_PER_SECOND", 10**9)
    with pytest.raises(RejectedError) as refused:
        read_body(environ(dripping, 1_000_000))
    assert (refused.value.code, refused.value.status) == ("web.slow-body", 408)


def test_what_a_refused_client_still_sends_is_taken_for_a_bounded_time(
    dripping: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "DISCARD_SECONDS", 0.0)
    assert list(read_to_end(environ(dripping, 1_000_000), [b"no"])) == [b"no"]


def test_a_client_that_goes_away_in_its_arguments_is_not_called_slow(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"half")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(RejectedError) as refused:
        read_body(environ(ours, 8))
    assert (refused.value.code, refused.value.status) == ("web.bad-body", 400)
