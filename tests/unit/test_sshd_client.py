"""sshd's two programs, run as sshd runs them, beside receptions that do not do what they should."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hgfleet.cli.openssh import CLIENT
from hgfleet.errors import RejectedError
from hgfleet.model.ids import parse_account_name
from tests.support.clients import Outcome, run

NOTHING_CHANGED = (
    "abort: temporarily unavailable, nothing was changed: this site's SSH service does not answer\n"
)
IN_DOUBT = "abort: not confirmed: it may still appear; push again to find out\n"
Serve = Callable[[Callable[[socket.socket], None]], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Listen, and do something with the one connection that comes."""
    path = tmp_path / "socket"
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:

        def start(act: Callable[[socket.socket], None]) -> Path:
            def accept() -> None:
                connection, _ = listener.accept()
                with connection:
                    act(connection)

            listener.bind(str(path))
            listener.listen(1)
            threads.append(threading.Thread(target=accept))
            threads[0].start()
            return path

        yield start
        for thread in threads:
            thread.join(30)


def program(*arguments: str, environment: dict[str, str] | None = None) -> Outcome:
    """Run it as sshd does: with nothing but what sshd sets."""
    return run([sys.executable, "-I", "-S", str(CLIENT), *arguments], env=environment or {})


def read_and_close(connection: socket.socket) -> None:
    connection.recv(65536)


def close(connection: socket.socket) -> None:
    del connection  # the caller closes it, with the request unread


def test_a_request_that_nobody_read_changed_nothing(serve: Serve) -> None:
    outcome = program("visit", str(serve(close)), "alice", "SHA256:x")
    assert (outcome.status, outcome.out, outcome.err) == (75, "", NOTHING_CHANGED)


def test_a_request_that_was_read_and_not_answered_is_in_doubt(serve: Serve) -> None:
    outcome = program("visit", str(serve(read_and_close)), "alice", "SHA256:x")
    assert (outcome.status, outcome.out, outcome.err) == (75, "", IN_DOUBT)


def test_without_a_reception_nothing_was_changed(tmp_path: Path) -> None:
    outcome = program("visit", str(tmp_path / "none"), "alice", "SHA256:x")
    assert (outcome.status, outcome.out, outcome.err) == (75, "", NOTHING_CHANGED)


@pytest.mark.parametrize("act", [close, read_and_close])
def test_a_look_up_without_an_answer_lets_the_key_in_to_hear_so(
    serve: Serve, act: Callable[[socket.socket], None]
) -> None:
    outcome = program("keys", str(serve(act)), "alice", "ssh-ed25519", "AAAA").ok()
    command = f"{sys.executable} -I -S {CLIENT} outage reception"
    assert outcome.out == f'restrict,command="{command}" ssh-ed25519 AAAA\n'
    told = run(command.split(), env={})
    assert (told.status, told.out, told.err) == (75, "", NOTHING_CHANGED)


def test_the_answer_is_written_and_its_status_is_the_exit_status(serve: Serve) -> None:
    requests: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        requests.append(connection.recv(65536))
        connection.send(b"3\0shown\n\0told\n")

    environment = {
        "SSH_CONNECTION": "192.0.2.7 40000 127.0.0.1 22",
        "SSH_ORIGINAL_COMMAND": "x" * 20_000,
        "AUTOLAND_REQUEST_USER": "carol",
    }
    outcome = program("visit", str(serve(answer)), "alice", "SHA256:x", environment=environment)
    assert (outcome.status, outcome.out, outcome.err) == (3, "shown\n", "told\n")
    account, key, address, person, command = requests[0].split(b"\0")
    assert (account, key, address, person) == (b"alice", b"SHA256:x", b"192.0.2.7", b"carol")
    assert 1000 < len(command) < 10_000


NAMES = [
    "alice",
    "a.b+c@d-e_f",
    "a" * 100,
    "a" * 101,
    "",
    "-x",
    ".x",
    "a b",
    "a\nb",
    'a"b',
    "é",
    "٣",
    "a/b",
    "a\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_during_an_outage_only_what_can_be_an_accounts_name_is_let_in_to_hear_so(
    tmp_path: Path, name: str
) -> None:
    outcome = program("keys", str(tmp_path / "none"), name, "ssh-ed25519", "AAAA").ok()
    try:
        parse_account_name(name)
    except RejectedError:
        assert outcome.out == ""
    else:
        assert outcome.out.endswith(' outage reception" ssh-ed25519 AAAA\n')


@pytest.mark.parametrize("word", ["", "a b", "a\nrestrict", 'a"b', "a,b c", "#"])
def test_no_line_is_made_of_a_key_that_is_no_plain_word(tmp_path: Path, word: str) -> None:
    for key in (("ssh-ed25519", word), (word, "AAAA")):
        assert program("keys", str(tmp_path / "none"), "alice", *key).ok().out == ""
