"""What followers of the log agent are told, each at its own pace.

Promises: a follower of the log hears of every repository's last message, however slowly it reads; a follower
of the state topic gets every record that compaction left, in offset order. Neither makes the agent keep more
than one entry per repository, or one batch, for it.
Does not: know connections; `send` blocks while the other side does not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from hgfleet.model.ids import Offset, Partition, RepoId, Seq
from hgfleet.ports.replication_log import Record, ReplicationLog
from hgfleet.replication.agent_fields import RequestFields
from hgfleet.replication.agent_view import STATE_PLACE, AgentView, parse_state

READ_BYTES = 256 * 1024

Send = Callable[[dict[str, Any]], Awaitable[None]]
Event = dict[str, Any]


class Followers:
    """Everybody who follows the log."""

    def __init__(self, view: AgentView) -> None:
        self._view = view
        self._followers: set[_Follower] = set()
        view.listeners.on_advance.append(self._note)

    async def stream(self, fields: RequestFields, send: Send) -> None:
        """Send the snapshot, then what advances, until cancelled or the other side is gone."""
        with self._following() as follower:
            await send(self._snapshot())
            while True:
                for event in await follower.next_events():
                    await send(event)

    @contextmanager
    def _following(self) -> Iterator[_Follower]:
        follower = _Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def _note(self, repository: RepoId, seq: Seq, partition: Partition) -> None:
        for follower in self._followers:
            follower.note(repository, seq, partition)

    def _snapshot(self) -> Event:
        repositories = {
            repository: {"partition": partition, "seq": head.seq, "is_deleted": head.is_deleted}
            for partition, reader in self._view.readers.items()
            for repository, head in reader.heads.items()
            if head.is_created
        }
        return {
            "event": "snapshot",
            "catalogue_seq": self._view.catalogue.seq,
            "repositories": repositories,
        }


class _Follower:
    """What one follower has not been told yet: the last message per repository."""

    def __init__(self) -> None:
        self._advanced: dict[RepoId, tuple[Seq, Partition]] = {}
        self._has_news = asyncio.Event()

    def note(self, repository: RepoId, seq: Seq, partition: Partition) -> None:
        self._advanced[repository] = seq, partition
        self._has_news.set()

    async def next_events(self) -> list[Event]:
        await self._has_news.wait()
        self._has_news.clear()
        advanced, self._advanced = self._advanced, {}
        return [
            {"event": "advanced", "repository": repository, "seq": seq, "partition": partition}
            for repository, (seq, partition) in advanced.items()
        ]


class StateStreams:
    """Sends the state topic to whoever follows it, what is older from the log."""

    def __init__(self, view: AgentView, log: ReplicationLog, pool: ThreadPoolExecutor) -> None:
        self._view = view
        self._log = log
        self._pool = pool

    async def stream(self, fields: RequestFields, send: Send) -> None:
        """Send all records, the end of the first pass, and then records as they come."""
        end = await self.fetch_end()
        offset = await self._send_until(Offset(0), end, send)
        await send({"event": "end", "offset": end})
        while True:
            records = await self._read(offset)
            if records:
                offset = records[-1].next_offset
                await send(_records_event(records))
            else:
                await self._view.until(lambda seen=offset: self._view.state_offset > seen)  # type: ignore[misc]

    async def fetch_end(self) -> Offset:
        """Ask the log for the end of the state topic. Raises TransientError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._log.end_offset, *STATE_PLACE)

    async def _send_until(self, offset: Offset, end: Offset, send: Send) -> Offset:
        """Send what lies before `end`, and what came with it; return the offset after that."""
        while offset < end:
            records = await self._read(offset)
            if not records:  # compaction removed the rest
                return end
            offset = records[-1].next_offset
            await send(_records_event(records))
        return offset

    async def _read(self, offset: Offset) -> Sequence[Record]:
        """Return what there is from an offset on: from memory if it has just been folded."""
        records = self._view.recent.since(STATE_PLACE, offset)
        if records is not None:
            return records
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._log.read, *STATE_PLACE, offset, READ_BYTES)


def _records_event(records: Sequence[Record]) -> Event:
    return {"event": "records", "records": [_record_fields(record) for record in records]}


def _record_fields(record: Record) -> Mapping[str, Any]:
    key, value = parse_state(record)
    return {"key": key, "value": value, "offset": record.offset, "at": record.at}
