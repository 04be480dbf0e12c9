"""One `sshd -i` per connection, for sshd behind a load balancer whose PROXY header it could not read.

sshd gets the connection's own socket and the client's address as a variable that only we can set (`SetEnv`;
clients may send none of that name), from which the gate takes it.

Promises: at most `max_connections` at once, half of them of one address, and `max_logins_per_address` of one
that are younger than a log-in may take (sshd's MaxStartups does not count in this mode). So whoever is let in
only to hear of an outage holds no more than half. A session goes on when this process ends.
Does not: watch what sshd does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters import processes
from hgfleet.adapters.processes import Child, Program
from hgfleet.errors import TransientError
from hgfleet.runtime import clock

_TCP_DELACK_MAX_US = 46  # Linux 6.15
_ACKNOWLEDGE_AFTER_MICROSECONDS = 5000  # the kernel takes two of its ticks at least
CLIENT_ADDRESS_VARIABLE = "HGFLEET_CLIENT_ADDRESS"
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class SshdProgram:
    """Which sshd, with which configuration, and its limits."""

    program: Path
    config: Path
    max_connections: int = 200
    max_logins_per_address: int = 100
    login_timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class _Connection:
    address: str
    started_at: float
    child: Child


class SshdConnections:
    """Starts sshd for each connection, and counts."""

    def __init__(self, options: SshdProgram) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._connections: set[_Connection] = set()

    async def serve(self, connection: socket.socket, address: str) -> None:
        """Hand a connection over to an sshd of its own, or close it when there are too many."""
        with connection:
            if not self._has_room(address):
                _log.warning("ssh.connections-full", extra={"client_address": address})
                return
            connection.setblocking(True)
            _hurry(connection)
            try:
                child = processes.start(self._program(connection, address))
            except TransientError as error:
                _log.error("ssh.sshd-not-started", extra={"reason": str(error)})
                return
        started = _Connection(address, clock.monotonic(), child)
        self._connections.add(started)
        self._loop.add_reader(child.fileno(), self._ended, started)

    def _program(self, connection: socket.socket, address: str) -> Program:
        options = self._options
        variable = f"SetEnv={CLIENT_ADDRESS_VARIABLE}={address}"
        return Program(
            [str(options.program), "-i", "-e", "-f", str(options.config), "-o", variable],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            ends_with_us=False,
        )

    def _has_room(self, address: str) -> bool:
        options = self._options
        youngest = clock.monotonic() - options.login_timeout_seconds
        alike = [other for other in self._connections if other.address == address]
        logging_in = [other for other in alike if other.started_at > youngest]
        return (
            len(self._connections) < options.max_connections
            and len(alike) < max(1, options.max_connections // 2)
            and len(logging_in) < options.max_logins_per_address
        )

    def _ended(self, connection: _Connection) -> None:
        self._loop.remove_reader(connection.child.fileno())
        connection.child.exit_status()  # reaps it
        connection.child.close()
        self._connections.discard(connection)


def _hurry(connection: socket.socket) -> None:
    """Have neither side of a log-in wait 40 ms for the other's acknowledgement; sshd keeps what is set.

    During the log-in sshd itself does not ask for TCP_NODELAY yet; what the client writes in two pieces is
    adapters.prompt_sockets's story, told by an option where the kernel has it.
    """
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_DELACK_MAX_US, _ACKNOWLEDGE_AFTER_MICROSECONDS)
