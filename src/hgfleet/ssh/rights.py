"""Answers what an account may do now, to the workers of sessions that were opened a while ago.

A session outlives what let it in: its account may be disabled, leave a group or lose the key since. So its
worker asks here before each write, and once more before it hands the write over to the log.

Promises: an answer is the directory's own of this moment, or the cache's within its bound (A1); what can't be
known is TransientError at the asker, never a permission. Only our own user is answered.
Does not: know which groups a write needs (the worker does, under the settings at its seq).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hgfleet.adapters.local_listener import is_own_user, listen_locally
from hgfleet.errors import FleetError, PoisonError, RejectedError
from hgfleet.model.frames import FrameDecoder, encode_frame, error_header

_REQUEST_SECONDS = 10.0
_RECEIVE_BYTES = 4096
_log = logging.getLogger("hgfleet.ssh")

GroupsNow = Callable[[str, str], Awaitable[frozenset[str]]]  # of an account that came in with this key


class RightsService:
    """The listening socket; one question per connection."""

    def __init__(self, path: Path, groups_now: GroupsNow) -> None:
        self._path = path
        self._groups_now = groups_now
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises ConfigError when that is not possible."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listen_locally(self._path))

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question."""
        try:
            if is_own_user(writer.get_extra_info("socket")):
                writer.write(encode_frame(await self._answer(reader)))
                await writer.drain()
        except (OSError, TimeoutError, PoisonError) as error:
            _log.warning("ssh.program-failed", extra={"reason": str(error) or type(error).__name__})
        finally:
            with suppress(OSError):
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        async with asyncio.timeout(_REQUEST_SECONDS):
            header = await _read_header(reader)
        account, key = header.get("account"), header.get("key")
        try:
            if header.get("op") != "rights" or not isinstance(account, str) or not isinstance(key, str):
                raise RejectedError("sessions.bad-request", "a field is missing or of the wrong type")
            return {"ok": True, "groups": sorted(await self._groups_now(account, key))}
        except FleetError as error:
            return error_header(error)


async def _read_header(reader: asyncio.StreamReader) -> dict[str, Any]:
    decoder = FrameDecoder()
    while data := await reader.read(_RECEIVE_BYTES):
        for frame in decoder.feed(data):
            return frame.header
    raise ConnectionResetError("nothing was asked")
