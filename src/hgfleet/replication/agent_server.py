"""The log agent's socket: connections, frames, and who may talk.

Promises: only this account and root are served; a frame that is not one, or is too large, gets an error and
ends its connection, no other; a request that was read is answered before the server ends, if time allows.
Does not: know the operations (agent_requests).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hgfleet.errors import ConfigError, FleetError, PoisonError
from hgfleet.model.frames import LENGTHS, encode_frame, error_header, parse_header, parse_lengths
from hgfleet.replication.agent_fields import RequestFields
from hgfleet.replication.agent_requests import Requests
from hgfleet.replication.agent_streams import Send

BACKLOG = 512
READ_CHUNK_BYTES = 256 * 1024
MAX_REQUEST_HEADER_BYTES = 8 * 1024 * 1024
MAX_REQUEST_BODY_BYTES = 16 * 1024 * 1024
_PEER_CREDENTIALS = struct.Struct("3i")

logger = logging.getLogger("hgfleet.replication.agent_server")


class AgentServer:
    """Serves one socket path."""

    def __init__(self, path: Path, requests: Requests) -> None:
        self._path = path
        self._requests = requests
        self._idle: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises ConfigError `log.socket` when that cannot be done at this path."""
        try:
            listener = _listen(self._path)
        except OSError as error:
            raise ConfigError(
                "log.socket",
                "the log agent cannot listen",
                hint="a socket's path has room for 107 bytes",
                path=str(self._path),
                reason=str(error),
            ) from error
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def stop(self, grace_seconds: float) -> None:
        """Accept nothing more, let requests that were read be answered, then end every connection."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for task in self._idle:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=grace_seconds)
        for task in self._idle | self._busy:
            task.cancel()

    # ---- one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._idle.add(task)
        try:
            if _is_allowed(writer):
                await self._answer_all(reader, writer, task)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            logger.debug("connection.ended")
        finally:
            self._idle.discard(task)
            self._busy.discard(task)
            writer.close()

    async def _answer_all(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        while self._server is not None and self._server.is_serving():
            try:
                header, body = await _read_frame(reader)
            except PoisonError as error:
                await _send(writer, error_header(error))
                return
            stream = self._requests.stream(header.get("op"))
            if stream is not None:
                await _stream(partial(stream, RequestFields(header)), reader, writer)
                return
            self._idle.discard(task)
            self._busy.add(task)
            may_go_on = await self._answer(writer, header, body)
            self._busy.discard(task)
            self._idle.add(task)
            if not may_go_on:
                return

    async def _answer(self, writer: asyncio.StreamWriter, header: dict[str, Any], body: bytes) -> bool:
        """Answer one request; False when nothing sensible can follow on this connection."""
        try:
            answer, payload = await self._requests.answer(header.get("op"), RequestFields(header), body)
        except FleetError as error:
            await _send(writer, error_header(error))
            return error.code != "op.unknown"
        await _send(writer, {"ok": True, **answer}, payload)
        return True


def _listen(path: Path) -> socket.socket:
    """Bind under another name and rename: nobody connects before the mode is set."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(str(draft))
        draft.chmod(0o600)
        listener.listen(BACKLOG)
        draft.rename(path)
    except OSError:
        listener.close()
        raise
    return listener


def _is_allowed(writer: asyncio.StreamWriter) -> bool:
    connection = writer.get_extra_info("socket")
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(data)
    if uid in {0, os.geteuid()}:
        return True
    logger.warning("connection.refused", extra={"uid": uid})
    return False


async def _read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    header_size, body_size = parse_lengths(await reader.readexactly(LENGTHS.size))
    if header_size > MAX_REQUEST_HEADER_BYTES or body_size > MAX_REQUEST_BODY_BYTES:
        await _skip(reader, header_size + body_size)
        raise PoisonError("frame.damaged", "the request is larger than allowed")
    header = parse_header(await reader.readexactly(header_size))
    return header, await reader.readexactly(body_size)


async def _skip(reader: asyncio.StreamReader, size: int) -> None:
    """Read on without keeping anything, so that the client has sent all and hears why it was refused."""
    while size > 0 and (data := await reader.read(min(size, READ_CHUNK_BYTES))):
        size -= len(data)


async def _send(writer: asyncio.StreamWriter, header: dict[str, Any], body: bytes = b"") -> None:
    writer.write(encode_frame(header, body))
    await writer.drain()


async def _stream(
    stream: Callable[[Send], Awaitable[None]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Run a stream until the client closes the connection, or sends anything."""

    async def send(header: dict[str, Any]) -> None:
        await _send(writer, header)

    async def run() -> None:
        try:
            await stream(send)
        except FleetError as error:
            await _send(writer, error_header(error))

    sending, closing = asyncio.create_task(run()), asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait({sending, closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, closing):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task
