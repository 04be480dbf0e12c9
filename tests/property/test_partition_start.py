"""A reader that starts in the middle of a partition, from a checkpoint, decides as one that read everything.

The partition is written by primaries that depose one another, zombies of them that go on, replicas that
announce snapshots early and late, and by nobody in particular: damaged records and unknown kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgfleet.errors import PoisonError
from hgfleet.model.acceptance import PartitionReader, Verdict
from hgfleet.model.ids import Offset, Position, RepoId
from hgfleet.model.message import Kind, Message
from hgfleet.model.partition_fold import PartitionFold, format_fold, parse_fold
from tests.support.messages import R1, R2, R3, epoch, message, snapshot_message

REPOSITORIES = (R1, R2, R3)
STEP = 3  # offsets have gaps


@dataclass
class Writer:
    """One primary: it appends on top of what it has read, which stands still once it sleeps."""

    number: int
    state: PartitionFold


@dataclass
class World:
    """A partition and whoever writes to it."""

    records: list[Message | PoisonError] = field(default_factory=list)
    reader: PartitionFold = field(default_factory=PartitionFold)
    writers: list[Writer] = field(default_factory=list)

    def append(self, record: Message | PoisonError) -> None:
        self.records.append(record)
        fold(self.reader, record, len(self.records))

    def promote(self) -> None:
        number = len(self.writers) + 1
        self.append(epoch(number))
        self.writers.append(Writer(number, self.reader))

    def sleep(self, index: int) -> None:
        """From now on this primary knows nothing new: what it appends is a zombie's."""
        writer = self.writers[index % len(self.writers)]
        writer.state = parse_fold(format_fold(self.reader))

    def write(self, index: int, repository: RepoId, kind: Kind) -> None:
        writer = self.writers[index % len(self.writers)]
        head = writer.state.reader.head(repository)
        if head.is_deleted:
            return
        kind = kind if head.seq else Kind.CREATED
        trace = f"{writer.number}-{len(self.records)}"
        made = message(kind, repository, head.seq + 1, head.digest, epoch=writer.number, trace=trace)
        self.append(made)
        if writer.state is not self.reader:
            writer.state.take(made, Offset(writer.state.reader.position.offset + 1))

    def snapshot(self, repository: RepoId, back: int, epochs_back: int) -> None:
        head = self.reader.reader.head(repository)
        seq = max(1, head.seq - back)
        number = max(1, len(self.writers) - epochs_back)
        digest = head.digest if seq == head.seq else ""
        self.append(
            snapshot_message(seq, repository=repository, as_of=len(self.records), epoch=number, digest=digest)
        )


def fold(state: PartitionFold, record: Message | PoisonError, number: int) -> Verdict:
    end = Offset(number * STEP)
    return state.take_unreadable(end, record) if isinstance(record, PoisonError) else state.take(record, end)


def play(steps: list[tuple[int, int, int]]) -> World:
    world = World()
    world.promote()
    kinds = (Kind.PUSH, Kind.PUSH, Kind.SETTINGS, Kind.VOID, Kind.DELETED)
    for what, one, two in steps:
        repository = REPOSITORIES[two % 3]
        match what:
            case 0 | 1 | 2 | 3:
                world.write(one, repository, kinds[two % 5])
            case 4:
                world.promote()
            case 5:
                world.sleep(one)
            case 6:
                world.snapshot(repository, one % 3, two % 2)
            case 7 if world.records:  # anything comes again, late
                world.append(world.records[one % len(world.records)])
            case 8:
                context = {"repository": repository, "epoch": max(1, len(world.writers) - one % 2)}
                world.append(PoisonError("message.too-new", "of an unknown kind", **context))
            case _:
                world.append(PoisonError("message.damaged", "nothing can be read"))
    return world


STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 50), st.integers(0, 50)), min_size=5, max_size=60
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(0, 60), st.integers(0, 60))
def test_a_reader_from_a_checkpoint_decides_as_one_that_has_read_everything(
    steps: list[tuple[int, int, int]], cut: int, further: int
) -> None:
    world = play(steps)
    start = cut % (len(world.records) + 1)
    whole, verdicts = PartitionFold(), []
    at_start = b""
    for number, record in enumerate(world.records, 1):
        if number - 1 == start:
            at_start = format_fold(whole)
        verdicts.append(fold(whole, record, number))
    late = parse_fold(at_start or format_fold(whole))
    middle = start + further % (len(world.records) - start + 1)
    for number in range(start + 1, len(world.records) + 1):
        if number - 1 == middle:  # the next one to be trimmed goes on from the first checkpoint
            late = parse_fold(format_fold(late))
        assert fold(late, world.records[number - 1], number) is verdicts[number - 1]
    assert format_fold(late) == format_fold(whole)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_whoever_writes_a_checkpoint_writes_the_same(steps: list[tuple[int, int, int]]) -> None:
    world = play(steps)
    again = PartitionFold()
    for number, record in enumerate(world.records, 1):
        fold(again, record, number)
    assert format_fold(again) == format_fold(world.reader)


def zombie_partition() -> tuple[list[Message], int]:
    """A former primary's push behind its successor's epoch, and where a reader starts between the two."""
    created = message(Kind.CREATED, R1, 1, epoch=1)
    zombie = message(Kind.PUSH, R1, 2, created.digest, epoch=1, trace="zombie")
    real = message(Kind.PUSH, R1, 2, created.digest, epoch=2, trace="real")
    return [epoch(1), created, epoch(2), zombie, real], 3


def test_a_reader_that_infers_the_epoch_from_its_first_message_takes_a_zombies() -> None:
    records, start = zombie_partition()
    whole = PartitionFold()
    for number, record in enumerate(records, 1):
        if number - 1 == start:
            right = parse_fold(format_fold(whole))
        fold(whole, record, number)
    heads = right.reader.heads
    wrong = PartitionFold(
        PartitionReader(Position(Offset(start * STEP), records[start].envelope.epoch), heads)
    )
    assert fold(wrong, records[start], start + 1) is Verdict.COUNTS
    assert fold(right, records[start], start + 1) is Verdict.IGNORED
    assert fold(right, records[start + 1], start + 2) is Verdict.COUNTS
    assert right.reader.head(R1) == whole.reader.head(R1)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_a_checkpoint(data: bytes) -> None:
    with pytest.raises(PoisonError, match="checkpoint"):
        parse_fold(data)
    with pytest.raises(PoisonError, match="damaged checkpoint"):
        parse_fold(b"hgfleet-partition/1\n" + data)
