"""Ends the waiting for a client that sends too slowly, a byte at a time included, so that it holds no thread.

A time-out of a socket starts anew with each byte. So one thread per process looks after everything that is
being received, and ends what is over its time for the reader: it then reads the end, and can still answer.

Promises: what is received in time is not touched; nothing is ended once its block has been left.
Does not: bound how long an answer takes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hgfleet.runtime import clock

_TICK_SECONDS = 0.5
GetSocket = Callable[[], Any]


class Watched:
    """Something that is being received."""

    def __init__(self, get_socket: GetSocket, ends_at: float) -> None:
        self.get_socket = get_socket
        self.ends_at = ends_at
        self.is_over = False


class Deadlines:
    """Everything that this process is receiving; its thread starts with the first, after the fork."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self, get_socket: GetSocket, seconds: float) -> Watched:
        """Begin to look after what comes from a socket, which may be wrapped by another one meanwhile."""
        watched = Watched(get_socket, clock.monotonic() + seconds)
        with self._change:
            self._watched.add(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="deadlines", daemon=True)
                self._thread.start()
            self._change.notify()
        return watched

    def stop(self, watched: Watched) -> None:
        """Look after it no more; harmless when that is so already."""
        with self._change:
            self._watched.discard(watched)

    @contextmanager
    def within(self, get_socket: GetSocket, seconds: float) -> Iterator[Watched]:
        """Receive in the block; `is_over` says whether the time was."""
        watched = self.start(get_socket, seconds)
        try:
            yield watched
        finally:
            self.stop(watched)

    def _look(self) -> None:
        with self._change:
            while True:
                self._change.wait(_TICK_SECONDS if self._watched else None)
                now = clock.monotonic()
                for watched in self._watched:
                    if watched.ends_at < now:
                        _end(watched)


def _end(watched: Watched) -> None:
    watched.is_over = True
    with suppress(OSError):  # gone, or being wrapped just now: then at the next tick
        # Not the method of a TLS socket, which would forget its keys: the answer is still to be written.
        socket.socket.shutdown(watched.get_socket(), socket.SHUT_RD)


RECEIVING = Deadlines()
