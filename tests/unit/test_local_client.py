"""The blocking client of local sockets, against a server that behaves badly on purpose."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import (
    FleetError,
    InDoubtError,
    InvariantError,
    PoisonError,
    RejectedError,
    TransientError,
)
from hgfleet.model.frames import encode_frame, error_header


@contextmanager
def serving(directory: Path, answer: bytes | Callable[[socket.socket], None]) -> Iterator[Path]:
    """Answer one connection's first request with these bytes, then close."""
    path = directory / "s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if callable(answer):
                    answer(connection)
                else:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join(5)


def test_an_answer_comes_with_its_body(tmp_path: Path) -> None:
    with serving(tmp_path, encode_frame({"ok": True, "n": 1}, b"body")) as path, LocalClient(path) as client:
        frame = client.call("op", b"request", field=3)
    assert (frame.header["n"], frame.body) == (1, b"body")


@pytest.mark.parametrize(
    "error",
    [
        RejectedError("repo.unknown", "no such repository", hint="look again", path="x"),
        TransientError("log.down", "the log is unreachable"),
        InDoubtError("log.in-doubt", "not confirmed"),
        PoisonError("message.damaged", "damaged", size=3),
        InvariantError("x.y", "impossible"),
    ],
)
def test_an_error_arrives_as_the_class_it_was(tmp_path: Path, error: FleetError) -> None:
    answer = encode_frame(error_header(error))
    with (
        serving(tmp_path, answer) as path,
        LocalClient(path) as client,
        pytest.raises(type(error)) as caught,
    ):
        client.call("op")
    assert (caught.value.code, caught.value.message) == (error.code, error.message)
    assert (caught.value.hint, caught.value.context) == (error.hint, error.context)


@pytest.mark.parametrize(
    "fields", [None, "x", {"class": "SystemExit"}, {"class": "NOTHING_CHANGED", "code": "x"}]
)
def test_an_error_of_no_known_class_is_a_defect(tmp_path: Path, fields: object) -> None:
    answer = encode_frame({"ok": False, "error": fields})
    with serving(tmp_path, answer) as path, LocalClient(path) as client, pytest.raises(InvariantError):
        client.call("op")


def test_nobody_there_means_nothing_was_asked(tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        LocalClient(tmp_path / "s.sock")
    assert caught.value.code == "local.unreachable"


@pytest.mark.parametrize("answer", [b"", encode_frame({"ok": True}, b"x" * 100)[:50]], ids=["none", "half"])
def test_an_answer_that_is_cut_off_leaves_it_open_what_happened(tmp_path: Path, answer: bytes) -> None:
    with (
        serving(tmp_path, answer) as path,
        LocalClient(path) as client,
        pytest.raises(InDoubtError) as caught,
    ):
        client.call("op")
    assert caught.value.code == "local.cut-off"


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    silent = threading.Event()
    with serving(tmp_path, lambda _: silent.wait(5) and None) as path:
        with LocalClient(path, timeout_seconds=0.05) as client, pytest.raises(InDoubtError):
            client.call("op")
        silent.set()


def test_a_frame_larger_than_allowed_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with serving(tmp_path, b"\xff" * 8) as path, LocalClient(path) as client, pytest.raises(PoisonError):
        client.call("op")
