"""One client of the session server: its frames, and the descriptors that come with them.

Promises: only a process of the same user is talked to; descriptors that were received and not taken are
closed; sending never blocks the server (a client that does not read two small frames is dropped).
Does not: know what the frames ask for.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from hgfleet.errors import PoisonError
from hgfleet.model.frames import Frame, FrameDecoder, encode_frame
from hgfleet.runtime import clock

_RECEIVE_BYTES = 65536
_MAX_DESCRIPTORS = 3
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def is_same_user(sock: socket.socket) -> bool:
    """Tell whether the peer runs as our user (or root)."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid in (os.getuid(), 0)


class Connection:
    """A connected, non-blocking Unix stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.opened_at = clock.monotonic()
        self._decoder = FrameDecoder()
        self._descriptors: list[int] = []

    def receive(self) -> list[Frame] | None:
        """Return the frames that are complete now, None at the end. Raises PoisonError for garbage."""
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                self.sock, _RECEIVE_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        self._descriptors += descriptors
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > _MAX_DESCRIPTORS:
            raise PoisonError("frame.damaged", "more descriptors than a request has")
        return list(self._decoder.feed(data)) if data else None

    def take_descriptors(self) -> tuple[int, int, int]:
        """Return standard input, output and error of a session; the caller owns them now."""
        if len(self._descriptors) != _MAX_DESCRIPTORS:
            raise PoisonError("frame.damaged", "a session needs three descriptors")
        first, second, third = self._descriptors
        self._descriptors = []
        return first, second, third

    def send(self, header: dict[str, Any]) -> None:
        """Send a small frame; a client that is gone or does not read is not waited for."""
        data = encode_frame(header)
        try:
            is_whole = self.sock.send(data) == len(data)
        except OSError:
            is_whole = False
        if not is_whole:
            self.shut_down()

    def shut_down(self) -> None:
        """End the conversation; the next receive() returns None."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def detach(self) -> int:
        """Forget everything, in a forked child, without closing: returns the socket's descriptor."""
        self._descriptors = []
        return self.sock.detach()

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self.sock.close()
