"""The log agent's part of the feed: appends its writer's records, and sends it to whoever follows it.

Promises: nothing that is no feed record is appended; a follower gets every record from the offset that it
asks for, in order and at its own pace, and hears when the feed does not reach back so far, or not so far on.
Does not: judge which records count; every reader does that for itself (model.feed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.feed_records import decode_feed_record
from hgfleet.model.ids import Offset
from hgfleet.ports.replication_log import NewRecord, Record, ReplicationLog
from hgfleet.replication.agent_fields import RequestFields
from hgfleet.replication.agent_log_io import LogIo
from hgfleet.replication.agent_streams import Send
from hgfleet.replication.agent_view import FEED_PLACE, AgentView

READ_BYTES = 256 * 1024
MAX_RECORDS = 10_000  # of one append


class FeedDesk:
    """Appends to the feed, and everybody who follows it."""

    def __init__(self, view: AgentView, io: LogIo, log: ReplicationLog, pool: ThreadPoolExecutor) -> None:
        self._view = view
        self._io = io
        self._log = log
        self._pool = pool

    async def append(self, fields: RequestFields, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Append records; TransientError: none was or will be, InDoubtError: any of them may be."""
        records = [NewRecord(*FEED_PLACE, wire) for wire in _cut(body, fields.take("sizes", list))]
        offsets = await self._io.append(records)
        return {"offset": offsets[-1]}, b""

    async def stream(self, fields: RequestFields, send: Send) -> None:
        """Send the records from `offset` on (null: what comes from now on), and `end` at the present end.

        Where `offset` is not in the feed, `restart` says where it begins instead.
        """
        end = await self._fetch(self._log.end_offset)
        offset = end if fields.is_null("offset") else Offset(fields.natural("offset"))
        if not await self._fetch(self._log.first_offset) <= offset <= end:
            offset = await self._restart(send)
        while offset < end and (after := await self._send_next(offset, send)) != offset:
            offset = after
        await send({"event": "end", "offset": end})
        while True:
            offset = await self._send_next(offset, send)
            await self._view.until(lambda seen=offset: self._view.feed_offset > seen)  # type: ignore[misc]

    async def _send_next(self, offset: Offset, send: Send) -> Offset:
        """Send what is there; return the offset after it."""
        try:
            records = await self._read(offset)
        except RejectedError as error:
            if error.code != "log.overrun":
                raise
            return await self._restart(send)
        if records:
            await send(_records_event(records))
            return records[-1].next_offset
        return offset

    async def _restart(self, send: Send) -> Offset:
        first: Offset = await self._fetch(self._log.first_offset)
        await send({"event": "restart", "offset": first})
        return first

    async def _fetch(self, ask: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, ask, *FEED_PLACE)

    async def _read(self, offset: Offset) -> list[Record]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._log.read, *FEED_PLACE, offset, READ_BYTES)


def _cut(body: bytes, sizes: list[Any]) -> list[bytes]:
    """Cut the body into records that can be read; RejectedError `request.bad`."""
    are_sizes = all(type(size) is int and size > 0 for size in sizes) and 0 < len(sizes) <= MAX_RECORDS
    if not are_sizes or sum(sizes) != len(body):
        raise RejectedError("request.bad", "the body is not as long as its parts")
    wires: list[bytes] = []
    start = 0
    for size in sizes:
        wires.append(body[start : start + size])
        start += size
    for wire in wires:
        _check(wire)
    return wires


def _check(wire: bytes) -> None:
    try:
        decode_feed_record(wire)
    except PoisonError as error:
        raise RejectedError("request.bad", "there is no such feed record", reason=str(error)) from error


def _records_event(records: Sequence[Record]) -> dict[str, Any]:
    return {
        "event": "records",
        "records": [
            {
                "offset": record.offset,
                "next_offset": record.next_offset,
                "at": record.at,
                "value": record.value.decode("utf-8", "replace"),
            }
            for record in records
        ],
    }
