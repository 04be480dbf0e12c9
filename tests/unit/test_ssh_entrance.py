"""The entrance and the sockets of sshd's programs: limits, strangers, garbage."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hgfleet.adapters import openssh_front
from hgfleet.adapters.openssh_front import OpenSshFront, OpenSshOptions
from hgfleet.adapters.prompt_sockets import listen
from hgfleet.adapters.ssh_entrance import EntranceOptions, SshEntrance
from hgfleet.adapters.sshd_connections import SshdConnections, SshdProgram
from hgfleet.errors import ConfigError
from tests.support.receptions import LoopThread, ScriptedReception
from tests.support.waiting import wait_until

WAITS_FOR_INPUT = "#!/bin/sh\nexec cat\n"


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.stop()


@pytest.fixture
def sockets(tmp_path: Path) -> OpenSshOptions:
    return OpenSshOptions(tmp_path / "gate", tmp_path / "keys", ("gate",), keys_group=os.getgid())


@pytest.fixture
def front(loop: LoopThread, sockets: OpenSshOptions) -> Iterator[OpenSshFront]:
    front = OpenSshFront(sockets, ScriptedReception({"alice": ("ssh-ed25519 AAAA",)}))
    loop.run(front.start())
    yield front
    loop.run(front.stop(1.0))


def ask(path: Path, data: bytes, descriptors: tuple[int, ...] = ()) -> bytes:
    """Send one packet and return the answer, b"" for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        try:
            socket.send_fds(connection, [data], list(descriptors))
            return connection.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_the_look_up_answers_with_one_line_for_the_accounts_own_key(
    front: OpenSshFront, sockets: OpenSshOptions
) -> None:
    line = ask(sockets.keys_socket, b"alice\0ssh-ed25519\0AAAA").decode()
    assert line.startswith('+restrict,command="gate alice SHA256:')
    assert line.endswith('" ssh-ed25519 AAAA\n')
    for other in (b"alice\0ssh-ed25519\0BBBB", b"bob\0ssh-ed25519\0AAAA", b"-x\0\0", b"a\nb\0ssh-rsa\0AAAA"):
        assert ask(sockets.keys_socket, other) == b"+"


HOSTILE_NAMES = (
    "-oProxyCommand=id",
    "a b",
    'a"b',
    "a\nb",
    "$(id)",
    "a;id",
    "../a",
    "a\\",
    "é",
    "",
    "a" * 10_000,
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_could_be_taken_for_anything_else_opens_nothing_even_if_it_were_an_account(
    loop: LoopThread, sockets: OpenSshOptions, name: str
) -> None:
    front = OpenSshFront(sockets, ScriptedReception({name: ("ssh-ed25519 AAAA",)}))
    loop.run(front.start())
    try:
        assert ask(sockets.keys_socket, f"{name}\0ssh-ed25519\0AAAA".encode()) == b"+"
    finally:
        loop.run(front.stop(1.0))


def test_garbage_costs_only_its_sender(front: OpenSshFront, sockets: OpenSshOptions) -> None:
    reader, writer = os.pipe()
    for path in (sockets.keys_socket, sockets.gate_socket):
        assert ask(path, b"\xff\xfe") == b"" or path == sockets.gate_socket
        assert ask(path, b"x" * 70_000) == b""
        assert ask(path, b"a\0b\0c\0d\0e", (writer,)) == b""
    os.close(writer)
    os.set_blocking(reader, False)
    wait_until(lambda: os.read(reader, 1) == b"", what="the descriptors are closed")
    os.close(reader)
    assert ask(sockets.keys_socket, b"alice\0ssh-ed25519\0AAAA").startswith(b"+restrict")


def test_the_gates_socket_is_ours_alone_and_the_look_ups_for_its_group_too(
    front: OpenSshFront, sockets: OpenSshOptions
) -> None:
    assert stat.S_IMODE(sockets.gate_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(sockets.keys_socket.stat().st_mode) == 0o660
    assert sockets.keys_socket.stat().st_gid == os.getgid()


def test_a_stranger_is_not_answered(
    front: OpenSshFront, sockets: OpenSshOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh_front, "peer_user", lambda _connection: 12345)
    assert ask(sockets.keys_socket, b"alice\0ssh-ed25519\0AAAA") == b""
    assert ask(sockets.gate_socket, b"a\0b\0c\0d\0e", (0, 1, 2)) == b""


def test_more_visits_than_there_is_room_for_are_told_that_nothing_was_changed(
    loop: LoopThread, tmp_path: Path
) -> None:
    options = OpenSshOptions(tmp_path / "gate", tmp_path / "keys", ("gate",), max_connections=1)
    reception = ScriptedReception()
    front = OpenSshFront(options, reception)
    loop.run(front.start())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
            first.connect(str(options.gate_socket))
            socket.send_fds(first, [b"alice\0key\0::1\0\0wait"], [0, 1, 2])
            wait_until(lambda: len(reception.visits) == 1, what="the first visit")
            answer = ask(options.gate_socket, b"alice\0key\0::1\0\0x", (0, 1, 2))
        assert answer.startswith(
            b"75\0\0abort: temporarily unavailable, nothing was changed: too many sessions"
        )
        wait_until(reception.hung_up.is_set, what="the first visit is hung up")
    finally:
        loop.run(front.stop(1.0))


def test_a_socket_that_cannot_be_made_is_said_before_anything_starts(
    loop: LoopThread, sockets: OpenSshOptions, tmp_path: Path
) -> None:
    options = OpenSshOptions(tmp_path / "missing" / "gate", sockets.keys_socket, ("gate",))
    with pytest.raises(ConfigError) as refused:
        loop.run(OpenSshFront(options, ScriptedReception()).start())
    assert refused.value.code == "ssh.socket"


@pytest.fixture
def entrance(loop: LoopThread, tmp_path: Path) -> Iterator[Callable[[int], SshEntrance]]:
    """Run an entrance with room for so many, before a program that echoes."""
    program = tmp_path / "sshd"
    program.write_text(WAITS_FOR_INPUT)
    program.chmod(0o755)
    started: list[SshEntrance] = []

    def start(max_connections: int) -> SshEntrance:
        limits = SshdProgram(program, tmp_path / "sshd_config", max_connections=max_connections)

        def accept() -> SshEntrance:
            return SshEntrance(listen("127.0.0.1", 0), EntranceOptions(), SshdConnections(limits).serve)

        started.append(loop.call(accept))
        return started[-1]

    yield start
    for entrance in started:
        loop.call(entrance.close)


def connect(entrance: SshEntrance, address: str) -> socket.socket:
    """Connect from one of this machine's own addresses."""
    return socket.create_connection(("127.0.0.1", entrance.port), 10, source_address=(address, 0))


def test_connections_beyond_the_limit_are_closed_until_others_end(
    entrance: Callable[[int], SshEntrance],
) -> None:
    running = entrance(2)
    with connect(running, "127.0.0.1") as first, connect(running, "127.0.0.2") as second:
        assert all(echoes(connection) for connection in (first, second))
        with connect(running, "127.0.0.3") as third:
            assert not echoes(third)
        first.close()

        def has_room() -> bool:
            with connect(running, "127.0.0.3") as fourth:
                return echoes(fourth)

        wait_until(has_room, what="room for another")


def test_one_address_holds_no_more_than_half_of_all_connections(
    entrance: Callable[[int], SshEntrance],
) -> None:
    running = entrance(4)
    with connect(running, "127.0.0.1") as first, connect(running, "127.0.0.1") as second:
        assert all(echoes(connection) for connection in (first, second))
        with connect(running, "127.0.0.1") as third:
            assert not echoes(third)
        with connect(running, "127.0.0.2") as other:
            assert echoes(other)


def echoes(connection: socket.socket) -> bool:
    """Tell whether the program behind the connection answers."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except (BrokenPipeError, ConnectionResetError):
        return False
