"""What every SSH front promises (ports.ssh_front), on the embedded server and on a real sshd, directly and
behind a load balancer. The client is a real ssh; behind the front stands a reception that the test steers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.support.clients import clean_environment, run
from tests.support.receptions import BIG_BYTES
from tests.support.ssh_fronts import (
    ACCOUNT,
    BEHIND_PROXY,
    Running,
    embedded_front,
    openssh_behind_proxy,
    openssh_front,
)
from tests.support.waiting import wait_until

VERSION_1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 22\r\n"
VERSION_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 127, 0, 0, 1, 156, 64, 0, 22])
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"
BAD_HEADERS = {
    "none, but SSH at once": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an endless line": b"PROXY TCP4 " + b"1" * 200,
    "no address": b"PROXY TCP4 localhost 127.0.0.1 1 2\r\n",
    "an option for sshd": b'PROXY TCP6 ::1%"x\tPermitTTY=yes ::1 1 2\r\n',
    "version 2 of an unknown command": b"\r\n\r\n\0\r\nQUIT\n\x2f\x11\x00\x0c" + bytes(12),
    "version 2 that is too long": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    "version 2 that is too short": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04" + bytes(4),
}


class SshFrontContract:
    """The promises."""

    address = "127.0.0.1"

    def test_a_visit_has_the_account_key_address_and_command(self, running: Running) -> None:
        outcome = running.ssh("hg -R a serve --stdio")

        assert (outcome.status, outcome.out, outcome.err) == (3, "shown: hg -R a serve --stdio\n", "told\n")
        visit = running.reception.visits[-1]
        assert (visit.account, visit.client_address) == ("alice@example.org", self.address)
        fingerprint = run(["ssh-keygen", "-l", "-f", str(running.directory / "key.pub")]).out.split()[1]
        assert visit.key_fingerprint == fingerprint

    def test_no_command_is_none(self, running: Running) -> None:
        assert running.ssh().status == 3
        assert running.reception.visits[-1].command is None

    @pytest.mark.parametrize("command", ["two  words 'and' \"quotes\" $HOME `id` \\ ;&|", "ünïcödé", "a\nb"])
    def test_a_command_arrives_as_the_client_wrote_it(self, running: Running, command: str) -> None:
        assert running.ssh(command).out == f"shown: {command}\n"
        assert running.reception.visits[-1].command == command

    def test_a_command_of_ten_kilobytes_is_longer_than_any_that_is_served(self, running: Running) -> None:
        running.ssh("x" * 10_000)
        command = running.reception.visits[-1].command
        assert command is not None
        assert len(command) > 1000

    def test_a_command_with_a_nul_is_not_taken_for_its_beginning(self, running: Running) -> None:
        before = len(running.reception.visits)
        asyncio.run(run_raw(running, "hg -R a serve --stdio\0x"))
        commands = [visit.command for visit in running.reception.visits[before:]]
        assert commands in ([], ["hg -R a serve --stdio\0x"])

    def test_only_the_one_variable_of_a_clients_is_passed(self, running: Running) -> None:
        names = ("AUTOLAND_REQUEST_USER", "HGFLEET_CLIENT_ADDRESS", "SSH_CONNECTION", "LD_PRELOAD", "ENV")
        sent = " ".join(f"{name}=9.9.9.9" for name in names)
        running.ssh("x", options=[f"SetEnv={sent}"])
        visit = running.reception.visits[-1]
        assert dict(visit.variables) == {"AUTOLAND_REQUEST_USER": "9.9.9.9"}
        assert visit.client_address == self.address

    def test_all_output_comes_before_the_exit_status(self, running: Running) -> None:
        outcome = running.ssh("big")
        assert outcome.status == 7
        assert len(outcome.out) == BIG_BYTES
        assert outcome.err == "said at the end\n"

    def test_input_reaches_the_descriptors_and_ends(self, running: Running) -> None:
        sent = b"0123456789abcdef" * 60_000
        outcome = running.ssh("echo", stdin=sent)
        assert outcome.status == 7
        assert outcome.out.encode() == sent

    def test_a_client_that_is_killed_is_noticed(self, running: Running) -> None:
        running.reception.hung_up.clear()
        before = len(running.reception.visits)
        client = running.start("wait")
        wait_until(lambda: len(running.reception.visits) > before, what="the visit", explain=running.log)
        client.kill()
        client.communicate()
        wait_until(running.reception.hung_up.is_set, what="the hang-up", explain=running.log)

    def test_a_defect_is_an_internal_error_and_nothing_more(self, running: Running) -> None:
        outcome = running.ssh("crash")
        assert (outcome.status, outcome.out, outcome.err) == (70, "", "abort: internal error\n")

    def test_another_key_or_account_opens_nothing(self, running: Running) -> None:
        before = len(running.reception.visits)
        for outcome in (running.ssh("x", key="other"), running.ssh("x", account="nobody-here")):
            assert outcome.status == 255
            assert "Permission denied (publickey)" in outcome.err
        assert len(running.reception.visits) == before

    def test_an_outage_is_not_permission_denied(self, running: Running) -> None:
        before = len(running.reception.visits)
        running.reception.is_unavailable = True
        try:
            outcomes = [running.ssh("x"), running.ssh("x", key="other")]
        finally:
            running.reception.is_unavailable = False
        for outcome in outcomes:
            assert outcome.status in {75, 255}
            assert "temporarily unavailable, nothing was changed: " in outcome.err
            assert "Permission denied" not in outcome.err
        assert len(running.reception.visits) == before

    def test_nothing_but_one_command_may_be_asked_for(self, running: Running) -> None:
        env = clean_environment(running.directory)
        words, target = running.words()[:-1], "localhost"
        before = len(running.reception.visits)
        strict = ["-o", "ExitOnForwardFailure=yes"]
        assert run([*words, *strict, "-W", "localhost:1", target], env=env).status == 255
        assert run([*words, *strict, "-R", "0:localhost:1", target, "x"], env=env).status == 255
        assert run([*words, "-s", target, "sftp"], env=env).status != 0
        assert len(running.reception.visits) == before
        assert "PTY allocation request failed" in run([*words, "-tt", target], env=env).err


class BehindProxyContract(SshFrontContract):
    """The promises, and that the client's address comes from whoever may say it."""

    address = "192.0.2.7"

    def test_a_health_check_sees_the_server_itself(self, running: Running) -> None:
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
                connection.sendall(header)
                assert connection.recv(4) == b"SSH-"

    def test_a_header_may_come_in_pieces(self, running: Running) -> None:
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in VERSION_2:
                connection.sendall(bytes([byte]))
            assert connection.recv(4) == b"SSH-"

    @pytest.mark.parametrize("header", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
    def test_anything_else_than_a_header_costs_the_connection(self, running: Running, header: bytes) -> None:
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            connection.sendall(header)
            assert read_all(connection) == b""

    def test_a_header_that_does_not_come_is_not_waited_for(self, running: Running) -> None:
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            assert connection.recv(1) == b""


async def run_raw(running: Running, command: str) -> None:
    """Run a command by a client that sends what no shell could, to whatever end."""
    key = str(running.directory / "key")
    with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
        connection.sendall(running.header)
        with contextlib.suppress(asyncssh.Error, ConnectionError):
            async with asyncssh.connect(
                sock=connection, username=ACCOUNT, client_keys=[key], known_hosts=None, config=None
            ) as client:
                await client.run(command, timeout=10)


def read_all(connection: socket.socket) -> bytes:
    """Read to the end, which may be a reset: not everything that we sent was read."""
    data = b""
    try:
        while part := connection.recv(4096):
            data += part
    except ConnectionResetError:
        pass
    return data


class TestEmbedded(SshFrontContract):
    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        with embedded_front(tmp_path_factory.mktemp("front")) as running:
            yield running


class TestOpenSsh(SshFrontContract):
    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        with openssh_front(tmp_path_factory.mktemp("front")) as running:
            yield running

    def test_without_a_reception_a_login_is_told_so_and_works_when_there_is_one_again(
        self, running: Running
    ) -> None:
        with running.restart():
            for key in ("key", "other"):
                outcome = running.ssh("hg -R a serve --stdio", key=key)
                assert (outcome.status, outcome.out) == (75, "")
                assert outcome.err == (
                    "abort: temporarily unavailable, nothing was changed: "
                    "this site's SSH service does not answer\n"
                )
        assert running.ssh("x").status == 3
        assert running.ssh("x", key="other").status == 255

    def test_a_key_that_is_let_in_to_hear_of_an_outage_can_do_nothing_else(self, running: Running) -> None:
        env = clean_environment(running.directory)
        words, target = running.words(key="other")[:-1], "localhost"
        with running.restart():
            strict = ["-o", "ExitOnForwardFailure=yes"]
            forwarded = run([*words, *strict, "-W", "localhost:1", target], env=env)
            backwards = run([*words, *strict, "-R", "0:localhost:1", target, "x"], env=env)
            subsystem = run([*words, "-s", target, "sftp"], env=env)
            terminal = run([*words, "-tt", target, "sh"], env=env)
        assert (forwarded.status, forwarded.out, backwards.status) == (255, "", 255)
        assert subsystem.status != 0
        assert "PTY allocation request failed" in terminal.err


class TestEmbeddedBehindProxy(BehindProxyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        with embedded_front(tmp_path_factory.mktemp("front"), BEHIND_PROXY) as running:
            running.header = VERSION_1
            yield running


class TestOpenSshBehindProxy(BehindProxyContract):
    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
        with openssh_behind_proxy(tmp_path_factory.mktemp("front")) as running:
            running.header = VERSION_2
            yield running


@pytest.mark.parametrize("key", ["key", "other"], ids=["an-account", "a-stranger-in-an-outage"])
def test_a_connection_in_which_no_session_is_open_is_ended(tmp_path: Path, key: str) -> None:
    with openssh_front(tmp_path, unused_timeout_seconds=1.0) as running:
        running.reception.is_unavailable = key == "other"
        *words, target = running.words(key=key)
        outcome = run([*words, "-N", target], env=clean_environment(running.directory))
    assert outcome.status == 255
    assert "Permission denied" not in outcome.err
    assert "terminating inactive connection" in running.log()
