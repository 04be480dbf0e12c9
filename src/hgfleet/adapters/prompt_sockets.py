"""Sockets whose connections acknowledge at once what they receive.

An OpenSSH client writes its last two messages of the key exchange one after the other, and its kernel holds
the second back until the first is acknowledged; we have nothing to say in between, so our kernel would wait
40 ms for something to send the acknowledgement with: more than the rest of the log-in, at every push.

Promises: what asyncio makes of such a listener behaves as before, but for the earlier acknowledgements.
Does not: work around the same thing on the client's side.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any


class PromptSocket(socket.socket):
    """A TCP socket; what it accepts is of its kind, too."""

    client_address = ""  # whose the connection is, where a load balancer said so

    def accept(self) -> tuple[PromptSocket, Any]:
        """Accept a connection; asyncio does it through here."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]
        return PromptSocket(self.family, self.type, self.proto, fileno=descriptor), address

    def getpeername(self) -> Any:
        """Return the client's address rather than its load balancer's; the port is the peer's."""
        peer = super().getpeername()
        return (self.client_address, *peer[1:]) if self.client_address else peer

    def recv(self, *args: int) -> bytes:
        """Receive and acknowledge; the kernel forgets the wish with every answer, so it is repeated."""
        data = super().recv(*args)
        with contextlib.suppress(OSError):  # gone since: the next call says so
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


def listen(address: str, port: int, backlog: int = 128) -> PromptSocket:
    """Listen there; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = PromptSocket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
