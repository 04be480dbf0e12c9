"""Hands a session's three descriptors to the session server and waits for its end; for asyncio.

Promises: open_session() raises TransientError unless a worker was started, in which case nothing was
changed; closing the session makes the server end its worker; a server that dies is InDoubtError.
Does not: close the descriptors it was given, or move their bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgfleet.adapters.local_client import parse_error
from hgfleet.errors import InDoubtError, PoisonError, TransientError
from hgfleet.model.frames import Frame, FrameDecoder, encode_frame

START_SECONDS = 5.0
_RECEIVE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended: its exit status (128 + n for a signal), and what the log accepted from it."""

    status: int
    changes: int = 0
    last_seq: int = 0


class OpenSession:
    """A session that a worker serves; made by open_session()."""

    def __init__(self) -> None:
        self.pid = 0
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.setblocking(False)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def start(self, path: Path, request: Mapping[str, Any], streams: tuple[int, int, int]) -> None:
        """Ask for a worker. Raises OSError, PoisonError, or what the server answered."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._connection, str(path))
        data = encode_frame({"op": "serve", **request})
        sent = socket.send_fds(self._connection, [data], list(streams))
        await loop.sock_sendall(self._connection, data[sent:])
        frame = await self._next_frame()
        if frame.header.get("ok") is not True:
            raise parse_error(frame.header.get("error"))
        self.pid = int(frame.header["pid"])

    async def end(self) -> SessionEnd:
        """Wait for the worker's end. Raises InDoubtError when the server died."""
        try:
            frame = await self._next_frame()
        except (OSError, PoisonError) as error:
            raise InDoubtError("sessions.cut-off", "the session server died") from error
        header = frame.header
        return SessionEnd(int(header["exit"]), int(header["changes"]), int(header["last_seq"]))

    def hang_up(self) -> None:
        """Have the server end the worker; end() still tells how that went."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up; harmless when the worker has ended."""
        self._connection.close()

    async def _next_frame(self) -> Frame:
        loop = asyncio.get_running_loop()
        while not self._frames:
            data = await loop.sock_recv(self._connection, _RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("closed by the session server")
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)


async def open_session(path: Path, request: Mapping[str, Any], streams: tuple[int, int, int]) -> OpenSession:
    """Start a worker on the descriptors. Raises TransientError, or what the server answered."""
    session = OpenSession()
    try:
        async with asyncio.timeout(START_SECONDS):
            await session.start(path, request, streams)
    except (OSError, PoisonError, TimeoutError) as error:
        session.close()
        raise TransientError("sessions.unreachable", "the session server does not answer") from error
    except BaseException:
        session.close()
        raise
    return session
