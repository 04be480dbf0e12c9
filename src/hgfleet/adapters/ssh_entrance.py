"""Accepts TCP connections for an SSH server, and finds out whose they are behind a load balancer.

A connection from a trusted network must start with a PROXY header, which is taken off; any other is taken as
it is, so nobody else can name an address. What follows goes to the server untouched.

Promises: a header that is late, too long or none costs its sender the connection and nothing else; at most
`max_connections` wait for theirs. A load balancer's own look (LOCAL, UNKNOWN) reaches the server as well, in
the load balancer's name.
Does not: count connections beyond the header, or speak SSH.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hgfleet.adapters.accepting import Acceptor
from hgfleet.adapters.proxy_protocol import ProxyHeader, plain_address, read_header
from hgfleet.errors import PoisonError

Handler = Callable[[socket.socket, str], Awaitable[None]]
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class EntranceOptions:
    """Whose headers are believed, how long one is waited for, and how many may be waited for."""

    trusted_proxies: tuple[str, ...] = ()
    header_timeout_seconds: float = 5.0
    max_connections: int = 200


class SshEntrance:
    """A listening socket whose connections go to a handler with the client's address."""

    def __init__(self, listener: socket.socket, options: EntranceOptions, handler: Handler) -> None:
        self._options = options
        self._handler = handler
        self._networks = [ipaddress.ip_network(network) for network in options.trusted_proxies]
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._acceptor = Acceptor(listener, self._accepted)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._acceptor.port

    def close(self) -> None:
        """Listen no more, and let go of those who have not said who they are."""
        self._acceptor.close()
        for task in self._tasks:
            task.cancel()

    def _accepted(self, connection: socket.socket) -> None:
        if self._waiting >= self._options.max_connections:
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._admit(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _admit(self, connection: socket.socket) -> None:
        self._waiting += 1
        try:
            address = await self._client_address(connection)
        except (PoisonError, OSError, TimeoutError) as error:
            _log.warning("ssh.no-proxy-header", extra={"reason": str(error) or type(error).__name__})
            connection.close()
            return
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            self._waiting -= 1
        await self._handler(connection, address)

    async def _client_address(self, connection: socket.socket) -> str:
        peer = plain_address(connection.getpeername()[0])
        if not any(ipaddress.ip_address(peer) in network for network in self._networks):
            return peer
        async with asyncio.timeout(self._options.header_timeout_seconds):
            header = await _receive_header(connection)
        return header.client_address or peer


async def _receive_header(connection: socket.socket) -> ProxyHeader:
    reader = read_header()
    wanted = next(reader)
    while True:
        data = await _receive_exactly(connection, wanted)
        try:
            wanted = reader.send(data)
        except StopIteration as end:
            header: ProxyHeader = end.value
            return header


async def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(connection, size - len(data))
        if not part:
            raise PoisonError("proxy.bad-header", "a trusted proxy's connection starts without its header")
        data += part
    return data
