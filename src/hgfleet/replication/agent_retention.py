"""What the log and the blob store forget, and when: done by the primary's agent, which is one at a time.

    for each partition: fold on to T, the first record that is too young or still needed
                        put the fold, append a `checkpoint` that names it, read that back
                        drop everything before T
    then: delete the blobs that nothing names, nor has named for a while

Promises: no message goes that the older of the two newest snapshots of its repository needs, and nothing goes
before what it said is written down where a reader without it finds it; killed between any two steps the next
life goes on. A blob is deleted only when no message left, snapshot or checkpoint names it, and never one that
was put lately: its message may be on its way.
Does not: decide on a host that is not the primary's: a deposed life's last drop is behind snapshots, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hgfleet.errors import FleetError, InDoubtError, PoisonError, TransientError
from hgfleet.model.features import check_readable
from hgfleet.model.ids import CATALOGUE, NO_DIGEST, Digest, Offset, Partition, Seq
from hgfleet.model.message import (
    Envelope,
    Kind,
    Message,
    PayloadRef,
    decode_message,
    encode_message,
    make_message,
)
from hgfleet.model.partition_fold import PartitionFold, checkpoint_body, format_fold
from hgfleet.ports.blob_store import BlobStore
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication.agent_appends import reach
from hgfleet.replication.agent_parts import AgentParts
from hgfleet.replication.agent_start import find_fold, read_records
from hgfleet.replication.agent_view import CATALOGUE_PLACE, pushdata
from hgfleet.runtime import clock

YIELD_EVERY = 200  # repositories looked at between two turns of the event loop
READ_BACK_SECONDS = 10.0

logger = logging.getLogger("hgfleet.replication.agent_retention")


class Retention:
    """One life's keeper of the log's size."""

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts
        self._options = parts.options
        self._policy = parts.options.retention
        self._view = parts.view
        self._folds: dict[Partition, PartitionFold] = {}
        self._forgotten: dict[Partition, Offset] = {}
        self._unnamed_since: dict[Digest, float] = {}
        self._put_at: dict[Digest, float] = {}
        self._deleting: dict[Digest, asyncio.Event] = {}

    async def note_put(self, sha256: Digest) -> None:
        """Keep a blob that is about to be put through this agent: what names it comes later.

        Returns once no deletion of it is under way: the put would find it there, and then it would be gone.
        """
        self._put_at[sha256] = clock.monotonic()
        while (deleted := self._deleting.get(sha256)) is not None:
            await deleted.wait()

    async def run(self) -> None:
        """Look at everything again and again; nothing that fails here ends the agent."""
        while True:
            await self._view.until(lambda: False, self._policy.interval_seconds)
            for partition in self._view.readers:
                await self._attempt("trim", self._trim(partition))
            await self._attempt("collect", self._collect())

    async def _attempt(self, what: str, work: Any) -> None:
        try:
            await work
        except (FleetError, OSError) as error:
            logger.warning("retention.failed", extra={"what": what, "reason": str(error)})

    # ---- the log

    async def _trim(self, partition: Partition) -> None:
        log, place = self._options.log, pushdata(partition)
        first = await self._in_pool(log.first_offset, *place)
        self._forget_before(partition, first)
        if not self._is_keeper(partition):
            self._folds.pop(partition, None)
            return
        before = clock.now() - self._policy.seconds
        records = await self._in_pool(log.read, *place, first, 1)
        if not records or records[0].at > before - self._policy.step_seconds:
            return  # each step costs a checkpoint
        bound = await self._needed_from(partition)
        fold = await self._in_pool(self._fold_on, partition, first, bound, before)
        if fold.reader.position.offset > first:
            await self._drop(partition, fold)

    def _forget_before(self, partition: Partition, offset: Offset) -> None:
        """Shorten the index, too, whoever has removed what it points to."""
        if offset > self._forgotten.get(partition, 0):
            self._view.forget_before(partition, offset)
            self._forgotten[partition] = offset

    def _is_keeper(self, partition: Partition) -> bool:
        return bool(self._parts.primary.serving_epoch(partition))

    async def _needed_from(self, partition: Partition) -> Offset:
        """Return the offset of the first message that a repository's older snapshot needs."""
        bound = self._view.readers[partition].position.offset
        for number, repository in enumerate(list(self._view.readers[partition].live())):
            bound = min(bound, self._first_needed(repository, bound))
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await self._view.until(lambda: False, 0.0)  # others have their turn
        reader = self._view.readers[partition]
        for repository in reader.parked:  # what it could not read is still to be read, by another release
            bound = min(bound, self._first_needed(repository, bound), reader.head(repository).position.offset)
        return bound

    def _first_needed(self, repository: Any, bound: Offset) -> Offset:
        older = self._view.standing(repository).older
        entries = self._view.find(repository, older.seq if older else Seq(0), 1)
        return entries[0].offset if entries else bound

    def _fold_on(self, partition: Partition, first: Offset, bound: Offset, before: float) -> PartitionFold:
        """Fold the records that may go; in a thread, one at a time."""
        fold = self._folds.get(partition)
        if fold is None or fold.reader.position.offset < first:
            fold = find_fold(self._options.log, self._options.blobs, partition)
        self._folds[partition] = fold
        for record in read_records(self._options.log, partition, fold.reader.position.offset):
            if record.next_offset > bound or record.at > before:
                break
            try:
                fold.take(decode_message(record.value), record.next_offset)
            except PoisonError as error:
                fold.take_unreadable(record.next_offset, error)
        return fold

    async def _drop(self, partition: Partition, fold: PartitionFold) -> None:
        """Write the fold down, read that back, and drop what it covers."""
        offset = fold.reader.position.offset
        await reach(self._options.faults, "retention-before-checkpoint")
        if offset not in self._view.checkpoints[partition]:
            await self._write_down(partition, offset, format_fold(fold))
        await reach(self._options.faults, "retention-before-drop")
        if not self._is_keeper(partition):
            return
        await self._in_pool(self._options.log.drop_before, *pushdata(partition), offset)
        await reach(self._options.faults, "retention-after-drop")
        self._forget_before(partition, offset)
        logger.info("retention.trimmed", extra={"partition": partition, "offset": offset})

    async def _write_down(self, partition: Partition, offset: Offset, data: bytes) -> None:
        check_readable(Kind.CHECKPOINT, self._view.fleet.feature_levels())
        sha256 = Digest(hashlib.sha256(data).hexdigest())
        await self.note_put(sha256)
        await self._in_blob_pool(_put_bytes, self._options.blobs, data, sha256)
        message = self._checkpoint(partition, offset, PayloadRef(len(data), sha256, False))
        with suppress(InDoubtError):
            await self._parts.io.append([NewRecord(*pushdata(partition), encode_message(message))])
        checkpoints = self._view.checkpoints
        if not await self._view.until(lambda: offset in checkpoints[partition], READ_BACK_SECONDS):
            raise TransientError("log.unconfirmed", "the log did not confirm a checkpoint")

    def _checkpoint(self, partition: Partition, offset: Offset, blob: PayloadRef) -> Message:
        envelope = Envelope(
            kind=Kind.CHECKPOINT,
            repository=CATALOGUE,
            seq=Seq(0),
            parent=NO_DIGEST,
            epoch=self._view.readers[partition].epoch,
            at=clock.now(),
            identity=f"host:{self._options.host}",
            trace=blob.sha256,
            body=checkpoint_body(partition, offset),
            payload=blob,
        )
        return make_message(envelope)

    # ---- blobs

    async def _collect(self) -> None:
        """Delete the blobs that nothing names.

        Not while there may be messages that this agent cannot read or has lost: they may name some. And none
        from before this log began: they may be the backup from which it is being filled.
        """
        if not self._parts.primary.is_serving_all() or self._is_in_doubt():
            self._unnamed_since.clear()
            return
        first = await self._in_pool(self._options.log.read, *CATALOGUE_PLACE, Offset(0), 1)
        stored = await self._in_blob_pool(list_blobs, self._options.blobs)
        unnamed = self._note_unnamed([blob for blob in stored if first and blob[2] >= first[0].at])
        for sha256 in unnamed:
            if sha256 not in self._named() and self._parts.primary.is_serving_all():
                await self._delete(sha256)

    async def _delete(self, sha256: Digest) -> None:
        """Delete a blob; a put of the same one waits meanwhile."""
        self._deleting[sha256] = asyncio.Event()
        try:
            await self._in_blob_pool(self._options.blobs.delete, sha256)
        finally:
            self._deleting.pop(sha256).set()
        self._unnamed_since.pop(sha256, None)
        logger.info("retention.blob-deleted", extra={"sha256": sha256})

    def _is_in_doubt(self) -> bool:
        is_parked = any(reader.parked for reader in self._view.readers.values())
        return is_parked or bool(self._view.catalogue.parked) or bool(self._view.lost_bindings())

    def _named(self) -> set[Digest]:
        now, grace = clock.monotonic(), self._policy.blob_grace_seconds
        self._put_at = {sha256: at for sha256, at in self._put_at.items() if now - at < grace}
        return self._view.named_blobs() | set(self._put_at) | self._parts.desk.named_blobs()

    def _note_unnamed(self, stored: Iterable[tuple[Digest, int, float]]) -> list[Digest]:
        """Return what has been named by nothing for the whole grace."""
        named = self._named()
        now, oldest = clock.monotonic(), clock.now() - self._policy.blob_grace_seconds
        seen = {sha256 for sha256, _size, at in stored if sha256 not in named and at < oldest}
        self._unnamed_since = {sha256: self._unnamed_since.get(sha256, now) for sha256 in seen}
        grace = self._policy.blob_grace_seconds
        return [sha256 for sha256, since in self._unnamed_since.items() if now - since >= grace]

    async def _in_pool(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.pool, function, *arguments)

    async def _in_blob_pool(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._parts.blob_pool, function, *arguments)


def list_blobs(blobs: BlobStore) -> list[tuple[Digest, int, float]]:
    """Return all that is stored."""
    return list(blobs.list())


def _put_bytes(blobs: BlobStore, data: bytes, sha256: Digest) -> None:
    with TemporaryDirectory(prefix="hgfleet-checkpoint-") as directory:
        source = Path(directory, "fold")
        source.write_bytes(data)
        blobs.put(source, sha256)
