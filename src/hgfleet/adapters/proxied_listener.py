"""A listening socket for asyncio whose connections have their PROXY header read already.

asyncio accepts when a listening socket becomes readable and starts to speak at once; a header takes a while
to come. So what asyncio gets is one end of a pair of sockets, rung whenever the entrance let somebody in.

Promises: what is accepted says the client's own address when asked for its peer, and has nothing of the
header left to read; however many finish their headers at once, none waits for another one to come.
Does not: decide whose header is believed (adapters.ssh_entrance does).
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import Any

from hgfleet.adapters.prompt_sockets import PromptSocket
from hgfleet.adapters.ssh_entrance import EntranceOptions, SshEntrance

_RINGS = 4096


class ProxiedListener(socket.socket):
    """Stands in for the listening socket that it was made from; needs a running event loop."""

    def __init__(self, listener: PromptSocket, options: EntranceOptions) -> None:
        bell, self._rope = socket.socketpair()
        super().__init__(bell.family, bell.type, bell.proto, fileno=bell.detach())
        self.setblocking(False)
        self._rope.setblocking(False)
        self._address = listener.getsockname()
        self._admitted: deque[PromptSocket] = deque()
        self._entrance = SshEntrance(listener, options, self._admit)

    def accept(self) -> tuple[PromptSocket, Any]:
        """Return somebody who was let in. Raises BlockingIOError when nobody is left."""
        if not self._admitted:
            self._stop_ringing()
            raise BlockingIOError
        connection = self._admitted.popleft()
        return connection, connection.getpeername()

    def _stop_ringing(self) -> None:
        """Take every ring off the bell, which asyncio watches until then: it accepts a few at a time."""
        with suppress(BlockingIOError):
            while super().recv(_RINGS):
                pass

    def listen(self, backlog: int = 0) -> None:
        """Do nothing: the entrance listens."""

    def getsockname(self) -> Any:
        """Return where the entrance listens."""
        return self._address

    def close(self) -> None:
        """Listen no more, and let go of those that nobody accepted."""
        self._entrance.close()
        while self._admitted:
            self._admitted.popleft().close()
        self._rope.close()
        super().close()

    async def _admit(self, connection: socket.socket, address: str) -> None:
        assert isinstance(connection, PromptSocket)  # noqa: S101 - a PromptSocket accepts its own kind
        connection.client_address = address
        self._admitted.append(connection)
        with suppress(BlockingIOError):  # it rings already, and goes on while somebody is left
            self._rope.send(b".")
