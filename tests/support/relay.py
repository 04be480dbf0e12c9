"""A TCP relay in front of a real server, for what a network does: slow answers, connections cut off."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

CHUNK_BYTES = 64 * 1024


class Relay:
    """Forwards connections to one port. Attributes may be set at any time, for what comes after."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.delay_seconds = 0.0  # before each piece that the server sends
        self.answer_bytes: int | None = None  # a connection is cut after so many bytes from the server
        self.connections = 0
        self._target = (address, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            self._answer(server, client)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        left = self.answer_bytes
        while data := server.recv(CHUNK_BYTES):
            if self.delay_seconds:
                time.sleep(self.delay_seconds)
            if left is not None and len(data) >= left:
                client.sendall(data[:left])
                return
            client.sendall(data)
            left = None if left is None else left - len(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
