"""Accepts the connections of a listening socket in an event loop.

Promises: a process that runs out of descriptors goes on accepting when it has some again, instead of spinning
or giving up; after close() nothing is accepted any more.
Does not: make the listening socket or know what the connections are for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

_PAUSE_SECONDS = 1.0
_BATCH = 64  # connections before anything else gets its turn
_OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log = logging.getLogger("hgfleet.ssh")


class Acceptor:
    """Hands each accepted connection, made non-blocking, to a function that must not block."""

    def __init__(self, listener: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Stop listening."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._listener.getsockname()[1])

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return  # none is left, or it is gone again
            except OSError as error:
                self._pause(error)
                return
            connection.setblocking(False)
            self._accepted(connection)

    def _pause(self, error: OSError) -> None:
        if error.errno not in _OUT_OF_ROOM:
            raise error
        _log.error("ssh.no-descriptors", extra={"reason": error.strerror})
        self._loop.remove_reader(self._listener)
        self._loop.call_later(_PAUSE_SECONDS, self._resume)
