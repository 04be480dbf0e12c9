"""The log agent's part in snapshots: which are in force, which are due on which host, and their messages.

Who makes one is not written anywhere: each repository has an order of the counted mirrors, the first makes
it, and a host that was of no use for a while is stepped in for by the next. Membership is by lease, so a dead
host's turn passes; two that make one at once do no harm, as the higher position counts.

Promises: a `snapshot` message is appended only of a state that this agent has read in the log, with a blob
that is stored; in_force is told only of what was read back.
Does not: make snapshots (snapshot_maker) or judge the blob's content: its maker has restored it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import InDoubtError, RejectedError
from hgfleet.model.features import check_readable
from hgfleet.model.fleet import FleetView
from hgfleet.model.ids import NO_DIGEST, Digest, HostName, Offset, Partition, RepoId, Seq
from hgfleet.model.message import Envelope, Kind, Message, PayloadRef, Topic, encode_message, make_message
from hgfleet.model.message import decode_message as decode
from hgfleet.model.retention import Growth, due_since, is_turn, rank_of
from hgfleet.model.snapshot import Snapshot, SnapshotHeader, snapshot_body
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication.agent_parts import AgentParts
from hgfleet.replication.agent_reading import read_entries
from hgfleet.replication.agent_view import pushdata
from hgfleet.runtime import clock

MAX_DUE = 32
YIELD_EVERY = 200  # repositories looked at between two turns of the event loop
READ_BACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Due:
    """A repository that needs a snapshot from the host that asked."""

    repository: RepoId
    seconds: float  # for how long


@dataclass(frozen=True, slots=True)
class _Known:
    """What a growth was computed for."""

    seq: Seq
    newest: Digest


class SnapshotDesk:
    """Answers what makers of snapshots ask."""

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts
        self._view = parts.view
        self._policy = parts.options.snapshots
        self._growth: dict[RepoId, tuple[_Known, Growth]] = {}

    def in_force(self, repository: RepoId) -> list[Snapshot]:
        """Return the repository's snapshots, the newest first."""
        standing = self._view.standing(repository)
        return [snapshot for snapshot in (standing.newest, standing.older) if snapshot is not None]

    async def due(self, host: HostName) -> list[Due]:
        """Return what the host shall make now, the longest due first."""
        now, due = clock.now(), []
        for number, (partition, repository) in enumerate(self._live()):
            seconds = self._due_seconds(partition, repository, now)
            if seconds >= 0 and self._is_turn(host, repository, seconds):
                due.append(Due(repository, seconds))
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await self._view.until(lambda: False, 0.0)  # others have their turn
        return sorted(due, key=lambda one: -one.seconds)[:MAX_DUE]

    async def summary(self) -> dict[str, Any]:
        """Return how many repositories have none, when the oldest of the newest was made, and all bytes."""
        missing, size_bytes, times = 0, 0, []
        for number, (_partition, repository) in enumerate(self._live()):
            made = self.in_force(repository)
            missing += not made
            size_bytes += sum(snapshot.blob.size_bytes for snapshot in made)
            times += [snapshot.at for snapshot in made[:1]]
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await self._view.until(lambda: False, 0.0)  # others have their turn
        return {"missing": missing, "oldest_at": min(times, default=None), "size_bytes": size_bytes}

    async def announce(
        self, header: SnapshotHeader, blob: PayloadRef, host: str, wait_seconds: float
    ) -> bool:
        """Append the message about a snapshot; return whether it is in force, once that is known.

        Raises RejectedError (`snapshot.unknown-state`, `blob.missing`, `feature.not-everywhere`, …): it will
        not be; TransientError; InDoubtError when the log did not answer in time.
        """
        ends_at = clock.monotonic() + wait_seconds
        partition = await self._check(header, blob)
        while clock.monotonic() < ends_at:
            message = self._message(header, blob, host, partition)
            if self._is_superseded(message):
                return False
            if await self._append(message, partition):
                return True
        raise InDoubtError("log.in-doubt", "the log did not confirm the snapshot", seq=header.seq)

    # ---- what is due

    def _live(self) -> list[tuple[Partition, RepoId]]:
        return [
            (partition, repository)
            for partition, reader in self._view.readers.items()
            for repository in reader.live()
        ]

    def _due_seconds(self, partition: Partition, repository: RepoId, now: float) -> float:
        head = self._view.readers[partition].head(repository)
        standing = self._view.standing(repository)
        if self._view.wanted.get(repository, 0) > (standing.newest.seq if standing.newest else 0):
            return 0.0
        return due_since(self._policy, head, standing, self._growth_of(repository), now)

    def _growth_of(self, repository: RepoId) -> Growth:
        newest = self._view.standing(repository).newest
        head = self._view.head(repository)
        known = _Known(head.seq, newest.blob.sha256 if newest else NO_DIGEST)
        cached = self._growth.get(repository)
        if cached is not None and cached[0] == known:
            return cached[1]
        after = newest.seq if newest else Seq(0)
        size_bytes, first_at = self._view.growth(repository, after)
        since = newest.at if newest else first_at
        growth = Growth(head.seq - after, size_bytes, since or clock.now())
        self._growth[repository] = known, growth
        return growth

    def _is_turn(self, host: HostName, repository: RepoId, seconds: float) -> bool:
        rank = rank_of(host, repository, makers(self._view.fleet, repository))
        return rank is not None and is_turn(self._policy, seconds, rank)

    # ---- announcing

    async def _check(self, header: SnapshotHeader, blob: PayloadRef) -> Partition:
        partition = self._view.partition_of(header.repository)
        if partition is None or self._view.head(header.repository).is_deleted:
            raise RejectedError("repo.unknown", "no such repository", status=404)
        if not await self._is_known(header, partition):
            raise RejectedError("snapshot.unknown-state", "the log does not have the snapshot's state")
        check_readable(Kind.SNAPSHOT, self._view.fleet.feature_levels())
        loop, options = asyncio.get_running_loop(), self._parts.options
        if not await loop.run_in_executor(self._parts.blob_pool, options.blobs.contains, blob.sha256):
            raise RejectedError("blob.missing", "no such blob", status=404, sha256=blob.sha256)
        return partition

    async def _is_known(self, header: SnapshotHeader, partition: Partition) -> bool:
        """Whether the message at the snapshot's seq is the one that it names."""
        head = self._view.head(header.repository)
        if head.seq <= header.seq:
            return (head.seq, head.digest) == (header.seq, header.digest)
        entries = self._view.find(header.repository, header.seq - 1, 1)
        if not entries or entries[0].seq != header.seq:
            return False  # retention has removed it: the snapshot would be too old to be of use
        loop = asyncio.get_running_loop()
        log = self._parts.options.log
        [wire] = await loop.run_in_executor(self._parts.pool, read_entries, log, Topic.PUSHDATA, entries[:1])
        return decode(wire).digest == header.digest

    def _message(self, header: SnapshotHeader, blob: PayloadRef, host: str, partition: Partition) -> Message:
        position = self._view.readers[partition].position
        is_newest = self._view.head(header.repository).seq == header.seq
        as_of = position.offset if is_newest else Offset(0)
        envelope = Envelope(
            kind=Kind.SNAPSHOT,
            repository=header.repository,
            seq=header.seq,
            parent=NO_DIGEST,
            epoch=position.epoch,
            at=clock.now(),
            identity=f"host:{host}",
            trace=blob.sha256,
            body=snapshot_body(header, as_of, host),
            payload=blob,
        )
        return make_message(envelope)

    def _is_superseded(self, message: Message) -> bool:
        newest = self._view.standing(message.envelope.repository).newest
        as_of = message.envelope.body["as_of"]
        return newest is not None and newest.rank >= (message.envelope.seq, as_of)

    async def _append(self, message: Message, partition: Partition) -> bool:
        """Append and read back; False: not in force, or not yet."""
        with suppress(InDoubtError):
            await self._parts.io.append([NewRecord(*pushdata(partition), encode_message(message))])
        repository = message.envelope.repository

        def is_in_force() -> bool:
            newest = self._view.standing(repository).newest
            return newest is not None and newest.blob == message.envelope.payload

        return await self._view.until(is_in_force, READ_BACK_SECONDS)


def makers(fleet: FleetView, repository: RepoId) -> set[HostName]:
    """Return the hosts that may make a snapshot: counted mirrors whose copy of the repository is well."""
    return {member.host for member in fleet.counted if fleet.is_answered(member, repository)}


def describe(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot's fields for an answer."""
    return {
        "seq": snapshot.seq,
        "digest": snapshot.digest,
        "as_of": snapshot.as_of,
        "state_digest": snapshot.state_digest,
        "changesets": snapshot.changesets,
        "sha256": snapshot.blob.sha256,
        "size_bytes": snapshot.blob.size_bytes,
        "at": snapshot.at,
        "host": snapshot.host,
    }
