"""The SSH front on AsyncSSH, for a fleet whose primary runs no OpenSSH of its own.

Promises: those of ports.ssh_front. Public keys are the only way to log in. A directory that can't be asked
ends the connection with a reason of its own, which is not "permission denied" (A1). Connections that do not
log in in time, that are too many or that answer no keep-alive are cut off.
Does not: read commands (the gate does), or offer ciphers slower than AES-GCM that no current client needs.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncssh

from hgfleet.adapters.asyncssh_streams import ChannelStreams
from hgfleet.adapters.prompt_sockets import listen
from hgfleet.adapters.proxied_listener import ProxiedListener
from hgfleet.adapters.ssh_entrance import EntranceOptions
from hgfleet.errors import ConfigError, TransientError
from hgfleet.ports.ssh_front import PASSED_VARIABLES, Reception, Visit

DRAIN_SECONDS = 10.0
_INTERNAL_ERROR = 70
_MAX_SESSIONS_PER_CONNECTION = 10
_REKEY_BYTES = 1 << 30
_REKEY_SECONDS = 3600
_KEEPALIVES = 4
# OpenSSH would choose ChaCha20 first if it were here: 0.3 s more of our processor for an 80 MB clone.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes128-ctr")
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Where to listen, as whom, and what a connection may cost."""

    bind: str
    port: int  # 0: any free one
    host_key: Path
    max_connections: int = 200
    max_logins_per_address: int = 100  # connections of one address that have not logged in yet
    login_timeout_seconds: float = 30.0
    idle_timeout_seconds: float = 300.0
    entrance: EntranceOptions = EntranceOptions()


class AsyncSshFront:
    """A listening SSH server."""

    def __init__(self, options: FrontOptions, reception: Reception) -> None:
        self._options = options
        self._reception = reception
        self._acceptor: Any = None
        self._connections: set[_Server] = set()
        self._visits: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen and return the port. Raises ConfigError when that is not possible."""
        options = self._options
        logging.getLogger("asyncssh").setLevel(logging.WARNING)  # a dozen lines per session otherwise
        try:
            self._acceptor = await asyncssh.create_server(
                lambda: _Server(self),
                sock=self._listen(),
                server_host_keys=[asyncssh.read_private_key(options.host_key)],
                **_FIXED,
                login_timeout=options.login_timeout_seconds,
                keepalive_interval=options.idle_timeout_seconds / _KEEPALIVES,
                keepalive_count_max=_KEEPALIVES,
            )
        except asyncssh.KeyImportError as error:
            raise ConfigError(
                "ssh.host-key", "the SSH host key is damaged", path=str(options.host_key)
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                "ssh.listen", "cannot listen for SSH", port=options.port, reason=reason
            ) from error
        return int(self._acceptor.get_port())

    def _listen(self) -> socket.socket:
        listener = listen(self._options.bind, self._options.port)
        entrance = self._options.entrance
        return ProxiedListener(listener, entrance) if entrance.trusted_proxies else listener

    async def stop(self, grace_seconds: float) -> None:
        """Take no new connections, let the visits end, then close what is left."""
        self._acceptor.close()
        if self._visits:
            await asyncio.wait(set(self._visits), timeout=grace_seconds)
        for server in list(self._connections):
            server.connection.disconnect(asyncssh.DISC_BY_APPLICATION, "the server is stopping")
        await self._acceptor.wait_closed()

    def start_visit(self, visit: Coroutine[Any, Any, None]) -> None:
        """Run a visit; stop() waits for it."""
        task = asyncio.get_running_loop().create_task(visit)
        self._visits.add(task)
        task.add_done_callback(self._visits.discard)

    def admit_connection(self, server: _Server) -> bool:
        """Count a new connection; False when there are too many, or too many logins from its address."""
        logins = [
            other for other in self._connections if other.is_logging_in and other.address == server.address
        ]
        if len(logins) >= self._options.max_logins_per_address:
            return False
        if len(self._connections) >= self._options.max_connections:
            return False
        self._connections.add(server)
        return True

    def forget_connection(self, server: _Server) -> None:
        """Uncount a connection."""
        self._connections.discard(server)

    @property
    def reception(self) -> Reception:
        """Whom visits are handed to."""
        return self._reception


class _Server(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, front: AsyncSshFront) -> None:
        self.connection: Any = None
        self.address = ""
        self.is_logging_in = True
        self.key_fingerprint = ""
        self.open_sessions = 0
        self._front = front

    def connection_made(self, conn: Any) -> None:
        self.connection = conn
        self.address = client_address(conn)
        if not self._front.admit_connection(self):
            _log.warning("ssh.connections-full", extra={"client_address": self.address})
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.forget_connection(self)

    def begin_auth(self, username: str) -> bool:
        return True

    def auth_completed(self) -> None:
        self.is_logging_in = False

    def public_key_auth_supported(self) -> bool:
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        try:
            account = await self._front.reception.account(username)
        except TransientError as error:
            self.connection.disconnect(
                asyncssh.DISC_SERVICE_NOT_AVAILABLE,
                f"temporarily unavailable, nothing was changed: {error.message}",
            )
            return False
        self.key_fingerprint = key.get_fingerprint()
        return account is not None and any(_is_key(line, key) for line in account.keys)

    def session_requested(self) -> asyncssh.SSHServerSession[bytes] | bool:
        if self.open_sessions >= _MAX_SESSIONS_PER_CONNECTION:
            return False
        return _Session(self._front, self)


class _Session(asyncssh.SSHServerSession[bytes]):
    """One session of a connection; AsyncSSH calls connection_made() before anything else."""

    _channel: Any
    _streams: ChannelStreams

    def __init__(self, front: AsyncSshFront, server: _Server) -> None:
        self._front = front
        self._server = server

    def connection_made(self, chan: Any) -> None:
        self._channel = chan
        chan._process_exec_request = partial(_process_exec_request, chan)
        self._streams = ChannelStreams(chan)
        self._server.open_sessions += 1

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        return True

    def session_started(self) -> None:
        self._front.start_visit(self._run())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._streams.data_received(data)

    def eof_received(self) -> bool:
        self._streams.eof_received()
        return True

    def pause_writing(self) -> None:
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        self._streams.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open_sessions -= 1
        self._streams.close()

    async def _run(self) -> None:
        """Serve the visit; the outermost frame of a session."""
        status = _INTERNAL_ERROR
        try:
            status = await self._front.reception.receive(self._visit(), self._streams)
            await self._streams.wait_drained(DRAIN_SECONDS)
        except Exception:
            _log.exception("ssh.visit-failed")
            self._streams.tell("abort: internal error")
        finally:
            if not self._channel.is_closing():
                self._channel.exit(status)

    def _visit(self) -> Visit:
        given = self._channel.get_environment_bytes()
        passed = {name: given.get(name.encode()) for name in PASSED_VARIABLES}
        connection = self._server.connection
        return Visit(
            account=connection.get_extra_info("username"),
            client_address=self._server.address,
            command=self._channel.get_command(),
            variables={name: value.decode("utf-8", "replace") for name, value in passed.items() if value},
            key_fingerprint=self._server.key_fingerprint,
        )


_FIXED: dict[str, Any] = {
    "server_version": "hgfleet",
    "encoding": None,
    "line_editor": False,
    "allow_pty": False,
    "allow_scp": False,
    "agent_forwarding": False,
    "x11_forwarding": False,
    "password_auth": False,
    "kbdint_auth": False,
    "host_based_auth": False,
    "gss_host": None,
    "encryption_algs": list(_CIPHERS),
    "compression_algs": ["none"],
    "rekey_bytes": _REKEY_BYTES,
    "rekey_seconds": _REKEY_SECONDS,
}


def _process_exec_request(channel: Any, packet: Any) -> bool:
    """Stand in for AsyncSSH's own, which refuses a command that is not UTF-8 without a word to the client."""
    command = packet.get_string().decode("utf-8", "replace")
    packet.check_end()
    started: bool = channel._start_session(command=command)
    return started


def client_address(connection: Any) -> str:
    """Return the peer's address, "" when it is gone already."""
    peer = connection.get_extra_info("peername")
    return str(peer[0]) if peer else ""


def _is_key(line: str, key: asyncssh.SSHKey) -> bool:
    return base64.b64decode(line.split(" ")[1]) == key.public_data
