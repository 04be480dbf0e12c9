"""What this host's log agent has read: the folds of catalogue, partitions and fleet state.

Everything here happens in the event loop's thread, in the order in which records are delivered.

Promises: a message counts here iff the acceptance rule says so, our own only once it was read back; what the
index holds is what was folded. A record that cannot be read parks its repository and nothing else.
Does not: append, or read the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hgfleet.adapters.agent_index import AgentIndex, IndexEntry, PartitionState
from hgfleet.errors import PoisonError
from hgfleet.model.acceptance import PartitionReader, RepoHead, Verdict
from hgfleet.model.catalogue import Binding, Catalogue
from hgfleet.model.fleet import FleetView
from hgfleet.model.ids import (
    CATALOGUE,
    NO_DIGEST,
    Digest,
    Epoch,
    Offset,
    Partition,
    Position,
    RepoId,
    RepoPath,
    Seq,
)
from hgfleet.model.message import Kind, Message, Topic, decode_message
from hgfleet.model.partition_fold import PartitionFold, parse_checkpoint
from hgfleet.model.settlement import Appends, Settled
from hgfleet.model.standing import Standing
from hgfleet.ports.replication_log import Record
from hgfleet.replication.agent_log_io import Place
from hgfleet.replication.agent_recent import RecentRecords
from hgfleet.runtime import clock

CATALOGUE_PLACE: Place = (Topic.CATALOGUE, Partition(0))
STATE_PLACE: Place = (Topic.STATE, Partition(0))
FEED_PLACE: Place = (Topic.FEED, Partition(0))
FLUSH_MESSAGES = 1000
_CHANGE_STANDING = frozenset({Kind.SNAPSHOT, Kind.BUNDLES, Kind.DELETED})
DAMAGED_VALUE = "damaged"  # stands for a state value that is not JSON: no reader takes it for anything

logger = logging.getLogger("hgfleet.replication.agent_view")

Advance = Callable[[RepoId, Seq, Partition], None]
Settle = Callable[[Place, Settled], None]


@dataclass(slots=True)
class Listeners:
    """Who hears of what was folded."""

    on_advance: list[Advance] = field(default_factory=list)
    on_settled: list[Settle] = field(default_factory=list)
    on_bundles: list[Callable[[RepoId], None]] = field(default_factory=list)


class AgentView:
    """The agent's state as folded from the log."""

    def __init__(
        self,
        partitions: int,
        index: AgentIndex,
        known: Mapping[Partition, PartitionState],
        feed_offset: Offset,
    ) -> None:
        """Begin where the index ends; catalogue and state topic are small and read from their start.

        Of the feed only the end is kept, to wake its followers; `feed_offset` is where it is now.
        """
        self._index = index
        self.catalogue = Catalogue()
        self.fleet = FleetView()
        self.folds = {Partition(n): _make_fold(known.get(Partition(n))) for n in range(partitions)}
        self.readers = {partition: fold.reader for partition, fold in self.folds.items()}
        self.checkpoints: dict[Partition, dict[Offset, Digest]] = {
            partition: dict(known[partition].checkpoints) if partition in known else {}
            for partition in self.folds
        }
        self.appends = {place: Appends() for place in [CATALOGUE_PLACE, *map(pushdata, self.readers)]}
        self.listeners = Listeners()
        self.recent = RecentRecords()
        self.state_offset = Offset(0)
        self.feed_offset = feed_offset
        self.wanted: dict[RepoId, Seq] = {}  # up to where somebody wants a snapshot
        self._lost = index.lost()
        self._partition_by_repository = {
            repository: partition for partition, reader in self.readers.items() for repository in reader.heads
        }
        self._expected: dict[bytes, Message] = {}
        self._changed = asyncio.Event()
        self._flushed_at = clock.monotonic()

    # ---- questions

    def positions(self) -> dict[Place, Offset]:
        """Return the next offset to fold of every place."""
        positions = {pushdata(number): reader.position.offset for number, reader in self.readers.items()}
        positions[CATALOGUE_PLACE] = self.catalogue.position.offset
        positions[STATE_PLACE] = self.state_offset
        positions[FEED_PLACE] = self.feed_offset
        return positions

    def partition_of(self, repository: RepoId) -> Partition | None:
        """Return where the repository's messages are, None while nothing is known of it."""
        recorded = self.catalogue.partition_of(repository)
        return self._partition_by_repository.get(repository) if recorded is None else recorded

    def head(self, repository: RepoId) -> RepoHead:
        """Return the end of a repository's sequence, CATALOGUE included."""
        if repository == CATALOGUE:
            return self.catalogue.head
        partition = self.partition_of(repository)
        return RepoHead() if partition is None else self.readers[partition].head(repository)

    def place_of(self, repository: RepoId) -> Place | None:
        """Return the place where the repository's messages go."""
        if repository == CATALOGUE:
            return CATALOGUE_PLACE
        partition = self.partition_of(repository)
        return None if partition is None else pushdata(partition)

    def find(self, repository: RepoId, after_seq: int, max_bytes: int) -> list[IndexEntry]:
        """Return where messages after a seq lie."""
        return self._index.find(repository, after_seq, max_bytes)

    def first_seq(self, repository: RepoId) -> Seq:
        """Return the seq of the first message that the log still has; one more than the last if none."""
        entries = self._index.find(repository, 0, 1)
        return entries[0].seq if entries else Seq(self.head(repository).seq + 1)

    def standing(self, repository: RepoId) -> Standing:
        """Return what is in force about a repository."""
        partition = self.partition_of(repository)
        return Standing() if partition is None else self.folds[partition].standings.get(repository)

    def growth(self, repository: RepoId, after_seq: int) -> tuple[int, float]:
        """Return the bytes of the messages after a seq, and when the log took the first of them (or 0)."""
        return self._index.growth(repository, after_seq)

    def named_blobs(self) -> set[Digest]:
        """Return every blob that a message that counts, a checkpoint, or anything in force names."""
        in_force = (message for fold in self.folds.values() for message in fold.standings.messages())
        refs = (message.envelope.payload for message in in_force)
        return self._index.blobs() | {ref.sha256 for ref in refs if not ref.is_inline}

    def forget_before(self, partition: Partition, offset: Offset) -> None:
        """Forget where messages lie that retention has removed."""
        self._index.forget_before(partition, offset)
        kept = {end: blob for end, blob in self.checkpoints[partition].items() if end >= offset}
        self.checkpoints[partition] = kept

    def lost(self, path: str) -> Binding | None:
        """Return a binding of a log before this one that this log knows nothing of: its copies are ahead."""
        binding = self._lost.get(RepoPath(path))
        if binding is None or self.catalogue.repository_at(path) is not None:
            return None
        return None if self.partition_of(binding.repository) is not None else binding

    def lost_bindings(self) -> list[Binding]:
        """Return every path that is lost, in order."""
        return [binding for path in sorted(self._lost) if (binding := self.lost(path)) is not None]

    def forget_lost(self, path: RepoPath) -> None:
        """Give a lost path up."""
        self._index.forget_lost(path)
        del self._lost[path]

    async def until(self, condition: Callable[[], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until the condition holds after something was folded; False on time-out."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True

    # ---- folding

    def expect(self, wire: bytes, message: Message) -> None:
        """Note a message of ours that will be read back: equal bytes need not be decoded again."""
        self._expected[wire] = message

    def expect_no_more(self, wire: bytes) -> None:
        """Forget it."""
        self._expected.pop(wire, None)

    def take(self, place: Place, records: Sequence[Record]) -> None:
        """Fold records of one place."""
        self.recent.note(place, records)
        topic, partition = place
        if topic is Topic.STATE:
            self._take_state(records)
        elif topic is Topic.CATALOGUE:
            self._take_catalogue(records)
        elif topic is Topic.FEED:
            self.feed_offset = records[-1].next_offset
        else:
            self._take_pushdata(partition, records)
        self._wake()

    def flush(self) -> None:
        """Write the index."""
        self._index.flush()
        self._flushed_at = clock.monotonic()

    def flush_if_due(self, seconds: float) -> None:
        """Write the index when much waits, or something does for so long."""
        is_old = clock.monotonic() - self._flushed_at >= seconds
        if self._index.pending >= FLUSH_MESSAGES or (is_old and self._index.has_pending):
            self.flush()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _take_state(self, records: Sequence[Record]) -> None:
        for record in records:
            key, value = parse_state(record)
            self.fleet.take(key, value, record.offset)
            self._take_wish(key, value)
            self.state_offset = record.next_offset

    def _take_wish(self, key: str, value: Any) -> None:
        """Take `snapshot/<repository>`: {"seq": n} wishes for a snapshot at n or later; null withdraws it."""
        kind, _, repository = key.partition("/")
        if kind != "snapshot":
            return
        seq = value.get("seq") if isinstance(value, Mapping) else None
        if type(seq) is int:
            self.wanted[RepoId(repository)] = Seq(seq)
        else:
            self.wanted.pop(RepoId(repository), None)

    def _take_catalogue(self, records: Sequence[Record]) -> None:
        was_parked = bool(self.catalogue.parked)
        for record in records:
            message = self._expected.get(record.value) or _decode(record)
            if isinstance(message, PoisonError):
                self.catalogue.take_unreadable(record.next_offset, str(message))
                continue
            verdict = self.catalogue.take(message, record.next_offset)
            if verdict in {Verdict.COUNTS, Verdict.EPOCH}:
                self._note(CATALOGUE_PLACE, record, self.catalogue.head, message)
                self._note_paths(message)
            self._settle(CATALOGUE_PLACE, message, verdict, self.catalogue.newest_epoch)
        if self.catalogue.parked and not was_parked:
            _log_parked(CATALOGUE, Partition(0), self.catalogue.parked)

    def _note_paths(self, message: Message) -> None:
        """Keep the index's paths level with the catalogue: every path that the message names."""
        for name in ("path", "new_path"):
            path = message.envelope.body.get(name)
            if isinstance(path, str):
                binding = self.catalogue.repository_at(path)
                if binding is None:
                    self._index.note_unbound(RepoPath(path))
                else:
                    self._index.note_bound(binding)

    def _take_pushdata(self, partition: Partition, records: Sequence[Record]) -> None:
        fold, reader = self.folds[partition], self.readers[partition]
        for record in records:
            message = self._expected.get(record.value) or _decode(record)
            if isinstance(message, PoisonError):
                self._take_unreadable(partition, record, message)
                continue
            repository = message.envelope.repository
            was_parked = repository in reader.parked
            verdict = fold.take(message, record.next_offset)
            self._note_said(partition, message)
            if verdict is Verdict.COUNTS:
                self._partition_by_repository[repository] = partition
                self._index.note_head(repository, partition, reader.head(repository))
                self._note(pushdata(partition), record, reader.head(repository), message)
            elif verdict is Verdict.PARKED and not was_parked:
                self._note_parked(partition, repository)
            self._settle(pushdata(partition), message, verdict, reader.epoch)
        self._index.note_position(partition, reader.position, tail_of(records[-1]))
        self.flush_if_due(seconds=1e9)

    def _note_said(self, partition: Partition, message: Message) -> None:
        """Note what is in force after a message that may have changed it, and what was written down."""
        repository, kind = message.envelope.repository, message.envelope.kind
        checkpoint = parse_checkpoint(message)
        if checkpoint is not None:
            self.checkpoints[partition][checkpoint.offset] = checkpoint.blob.sha256
            self._index.note_checkpoint(partition, checkpoint.offset, checkpoint.blob.sha256)
        elif kind in _CHANGE_STANDING:
            in_force = self.folds[partition].standings.get(repository).messages
            self._index.note_standing(repository, partition, in_force)
            if kind is not Kind.SNAPSHOT:
                for listener in self.listeners.on_bundles:
                    listener(repository)

    def _take_unreadable(self, partition: Partition, record: Record, error: PoisonError) -> None:
        repository = error.context.get("repository")
        logger.error(
            "log.unreadable-record",
            extra={"partition": partition, "offset": record.offset, "reason": str(error)},
        )
        verdict = self.folds[partition].take_unreadable(record.next_offset, error)
        if verdict is Verdict.PARKED and isinstance(repository, str):
            self._note_parked(partition, RepoId(repository))

    def _note_parked(self, partition: Partition, repository: RepoId) -> None:
        reason = self.readers[partition].parked[repository]
        self._index.note_parked(repository, partition, reason)
        _log_parked(repository, partition, reason)

    def _note(self, place: Place, record: Record, head: RepoHead, message: Message) -> None:
        envelope = message.envelope
        position = Position(record.next_offset, head.position.epoch)
        entry = IndexEntry(
            repository=envelope.repository,
            seq=head.seq,
            partition=place[1],
            offset=record.offset,
            position=position,
            size_bytes=len(record.value),
            at=record.at,
            blob=NO_DIGEST if envelope.payload.is_inline else envelope.payload.sha256,
        )
        self._index.note_message(entry)
        if place == CATALOGUE_PLACE or head.is_created:  # not one whose creation a `void` overtook
            for listener in self.listeners.on_advance:
                listener(envelope.repository, head.seq, place[1])

    def _settle(self, place: Place, message: Message, verdict: Verdict, epoch: Epoch) -> None:
        for settled in self.appends[place].observe(message, verdict, epoch):
            for listener in self.listeners.on_settled:
                listener(place, settled)


def pushdata(partition: Partition) -> Place:
    """Return the place of a partition of pushdata."""
    return Topic.PUSHDATA, partition


def parse_state(record: Record) -> tuple[str, Any]:
    """Return a state record's key and value; None: the key was removed."""
    key = record.key.decode("utf-8", "replace")
    if not record.value:
        return key, None
    try:
        return key, json.loads(record.value)
    except (ValueError, RecursionError):
        return key, DAMAGED_VALUE


def tail_of(record: Record) -> str:
    """Return what tells a record from any other that could come to lie at its offset."""
    return f"{record.offset}:{record.at!r}:{zlib.crc32(record.value)}"


def _make_fold(state: PartitionState | None) -> PartitionFold:
    if state is None:
        return PartitionFold()
    fold = PartitionFold(PartitionReader(state.position, state.heads, state.parked))
    for message in state.standing:
        fold.standings.put_back(message)
    return fold


def _decode(record: Record) -> Message | PoisonError:
    try:
        return decode_message(record.value)
    except PoisonError as error:
        return error


def _log_parked(repository: RepoId, partition: Partition, reason: str) -> None:
    logger.error("log.parked", extra={"repository": repository, "partition": partition, "reason": reason})
