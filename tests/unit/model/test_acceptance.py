"""Which messages of a partition count."""

from dataclasses import dataclass

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.acceptance import NO_HEAD, PartitionReader, RepoHead, Verdict, check_next
from hgfleet.model.ids import NO_DIGEST, START, Digest, Epoch, Offset, Position, Seq
from hgfleet.model.message import Kind, Message
from tests.support.messages import R1, R2, Chain, epoch, message


def read(*messages: Message, reader: PartitionReader | None = None) -> tuple[PartitionReader, list[Verdict]]:
    reader = reader or PartitionReader()
    return reader, [reader.take(m, Offset(reader.position.offset + 1)) for m in messages]


def test_the_next_message_of_the_epoch_in_force_counts() -> None:
    chain = Chain()
    created, push = chain.next(Kind.CREATED), chain.next(Kind.PUSH)
    reader, verdicts = read(epoch(1), created, push)
    assert verdicts == [Verdict.EPOCH, Verdict.COUNTS, Verdict.COUNTS]
    assert reader.head(R1) == RepoHead(
        Seq(2), push.digest, Position(Offset(3), Epoch(1)), is_created=True, is_deleted=False
    )
    assert reader.position == Position(Offset(3), Epoch(1))


def test_each_repository_has_a_chain_of_its_own() -> None:
    one, two = Chain(R1), Chain(R2)
    _, verdicts = read(epoch(1), one.next(Kind.CREATED), two.next(Kind.CREATED), one.next(Kind.PUSH))
    assert verdicts[1:] == [Verdict.COUNTS] * 3


def test_of_two_messages_at_one_seq_the_first_counts() -> None:
    chain = Chain()
    reader, verdicts = read(epoch(1), chain.peek(Kind.PUSH, trace="a"), chain.peek(Kind.PUSH, trace="b"))
    assert verdicts[1:] == [Verdict.COUNTS, Verdict.IGNORED]
    assert not reader.parked


def test_a_message_read_twice_counts_once() -> None:
    chain = Chain()
    created, push = chain.next(Kind.CREATED), chain.next(Kind.PUSH)
    _, verdicts = read(epoch(1), created, created, push, created, push)
    assert verdicts[1:] == [
        Verdict.COUNTS,
        Verdict.IGNORED,
        Verdict.COUNTS,
        Verdict.IGNORED,
        Verdict.IGNORED,
    ]


def test_a_former_primary_is_ignored_whatever_it_writes() -> None:
    chain = Chain(epoch=1)
    created = chain.next(Kind.CREATED)
    stray = message(Kind.PUSH, R1, 9, Digest("f" * 64), epoch=1)
    _, verdicts = read(epoch(1), created, epoch(2), chain.peek(Kind.PUSH), stray)
    assert verdicts[3:] == [Verdict.IGNORED, Verdict.IGNORED]


def test_an_epoch_message_that_comes_late_brings_its_epoch_not_back() -> None:
    chain = Chain(epoch=2)
    reader, verdicts = read(epoch(2), epoch(1), chain.next(Kind.CREATED))
    assert verdicts == [Verdict.EPOCH, Verdict.EPOCH, Verdict.COUNTS]
    assert reader.epoch == 2


@pytest.mark.parametrize(
    "odd",
    [
        message(Kind.PUSH, R1, 3, NO_DIGEST),
        message(Kind.PUSH, R1, 2, Digest("f" * 64)),
        message(Kind.PUSH, R1, 2, NO_DIGEST, epoch=2),
        message(Kind.BIND, R1, 2, NO_DIGEST),
    ],
    ids=["gap", "fork", "unopened-epoch", "catalogue-kind"],
)
def test_what_cannot_be_parks_its_repository_and_no_other(odd: Message) -> None:
    chain, other = Chain(R1), Chain(R2)
    reader, verdicts = read(
        epoch(1), chain.next(Kind.CREATED), odd, chain.next(Kind.PUSH), other.next(Kind.CREATED)
    )
    assert verdicts[2:] == [Verdict.PARKED, Verdict.PARKED, Verdict.COUNTS]
    assert list(reader.parked) == [R1]
    assert list(reader.live()) == [R2]


def test_what_is_about_a_repository_takes_no_seq_and_parks_nothing() -> None:
    chain = Chain()
    created = chain.next(Kind.CREATED)
    abouts = [message(kind, R1, 7) for kind in (Kind.SNAPSHOT, Kind.BUNDLES, Kind.CHECKPOINT)]
    reader, verdicts = read(epoch(1), created, *abouts, chain.next(Kind.PUSH))
    assert verdicts[2:] == [Verdict.ABOUT] * 3 + [Verdict.COUNTS]
    assert not reader.parked
    _, verdicts = read(epoch(2), message(Kind.SNAPSHOT, R1, 7, epoch=1), message(Kind.SNAPSHOT, R1, epoch=3))
    assert verdicts[1:] == [Verdict.IGNORED, Verdict.IGNORED]


def test_a_reader_goes_on_from_a_position_with_its_epoch() -> None:
    chain = Chain(epoch=2)
    created, push = chain.next(Kind.CREATED), chain.next(Kind.PUSH)
    first, _ = read(epoch(1), epoch(2), created)
    resumed = PartitionReader(first.position, first.heads)
    _, verdicts = read(message(Kind.PUSH, R1, 2, created.digest, epoch=1), push, reader=resumed)
    assert verdicts == [Verdict.IGNORED, Verdict.COUNTS]


def test_a_repository_that_is_further_than_the_position_goes_on_from_its_own() -> None:
    chain = Chain()
    messages = [epoch(1), chain.next(Kind.CREATED), chain.next(Kind.PUSH), chain.next(Kind.PUSH)]
    ahead, _ = read(*messages)
    behind, _ = read(*messages[:2])
    resumed = PartitionReader(behind.position, ahead.heads)
    late = message(Kind.PUSH, R1, 5, Digest("f" * 64))
    _, verdicts = read(messages[2], late, chain.next(Kind.PUSH), reader=resumed)
    assert verdicts == [Verdict.IGNORED, Verdict.IGNORED, Verdict.COUNTS]


def test_an_unreadable_record_parks_only_the_repository_it_names() -> None:
    chain, other = Chain(R1), Chain(R2)
    reader, _ = read(epoch(2))
    chain.epoch = other.epoch = 2
    reader.take(chain.next(Kind.CREATED), Offset(2))
    assert reader.take_unreadable(Offset(3), "too new", R1, Epoch(1)) is Verdict.IGNORED
    assert reader.take_unreadable(Offset(4), "garbage") is Verdict.IGNORED
    assert not reader.parked
    assert reader.take_unreadable(Offset(5), "too new", R1, Epoch(2)) is Verdict.PARKED
    assert reader.parked == {R1: "too new"}
    assert reader.take(other.next(Kind.CREATED), Offset(6)) is Verdict.COUNTS


def test_a_lost_record_shows_as_a_gap() -> None:
    chain = Chain()
    created = chain.next(Kind.CREATED)
    chain.next(Kind.PUSH)
    reader, _ = read(epoch(1), created)
    reader.take_unreadable(Offset(3), "garbage")
    assert reader.take(chain.next(Kind.PUSH), Offset(4)) is Verdict.PARKED
    assert reader.parked[R1] == "gap after seq 1"


def test_live_is_what_was_created_and_not_deleted() -> None:
    one, two, three = Chain(R1), Chain(R2), Chain("3" * 32)  # type: ignore[arg-type]
    reader, _ = read(
        epoch(1),
        one.next(Kind.CREATED),
        two.next(Kind.CREATED),
        two.next(Kind.DELETED),
        three.next(Kind.VOID),
    )
    assert list(reader.live()) == [R1]


@dataclass(frozen=True)
class SeqFile:
    """What a copy stores; anything with a seq and a digest will do."""

    seq: Seq
    digest: Digest


def test_a_copy_applies_the_next_and_has_what_came_before() -> None:
    chain = Chain()
    created, push = chain.next(Kind.CREATED), chain.next(Kind.PUSH)
    assert check_next(NO_HEAD, created) is Verdict.COUNTS
    copy = SeqFile(Seq(2), push.digest)
    assert check_next(copy, created) is Verdict.IGNORED
    assert check_next(copy, push) is Verdict.IGNORED
    assert check_next(copy, chain.next(Kind.PUSH)) is Verdict.COUNTS


def test_a_copy_that_is_no_prefix_of_its_log_is_parked() -> None:
    chain = Chain()
    chain.next(Kind.CREATED)
    push, other = chain.peek(Kind.PUSH, trace="a"), chain.next(Kind.PUSH, trace="b")
    for copy, m, code in [
        (SeqFile(Seq(2), push.digest), other, "apply.fork"),
        (SeqFile(Seq(2), push.digest), chain.peek(Kind.PUSH), "apply.fork"),
        (NO_HEAD, other, "apply.gap"),
    ]:
        with pytest.raises(PoisonError) as poison:
            check_next(copy, m)
        assert poison.value.code == code


def test_a_fresh_reader_stands_at_the_start() -> None:
    assert PartitionReader().position == START
