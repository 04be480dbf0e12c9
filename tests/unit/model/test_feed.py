"""Which records of the feed count."""

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.feed import FEED_START, MISSING, FeedPosition, FeedReader, FeedVerdict
from hgfleet.model.feed_records import FeedEntry, FeedRecord, Opening, decode_feed_record, encode_feed_record
from hgfleet.model.ids import CATALOGUE, Offset, RepoId, Seq
from tests.support.messages import R1, R2


def opening(turn: int) -> Opening:
    return Opening(turn, "one", f"life{turn}", 1.0)


def entry(
    turn: int, number: int, seq: int, *, after: int | None = None, repository: RepoId = R1
) -> FeedEntry:
    before = seq - 1 if after is None else after
    return FeedEntry(turn, number, repository, Seq(seq), Seq(before), "push", "team/app", 1.0)


def verdicts(reader: FeedReader, *records: FeedRecord) -> list[FeedVerdict]:
    start = reader.position.offset
    return [reader.take(record, Offset(start + at + 1)) for at, record in enumerate(records)]


def test_entries_of_the_turn_in_force_count_in_order() -> None:
    reader = FeedReader()
    told = verdicts(reader, opening(1), entry(1, 1, 1), entry(1, 2, 1, repository=R2), entry(1, 3, 2))
    assert told == [FeedVerdict.OPENED, *[FeedVerdict.COUNTS] * 3]
    assert reader.seqs == {R1: 2, R2: 1}
    assert reader.position == FeedPosition(Offset(4), 1, 3)


def test_what_a_replaced_writer_sent_does_not_count() -> None:
    reader = FeedReader()
    told = verdicts(
        reader, opening(1), opening(2), entry(1, 1, 1), entry(2, 1, 1), opening(1), entry(2, 2, 2), opening(2)
    )
    ignored, counts = FeedVerdict.IGNORED, FeedVerdict.COUNTS
    assert told[2:] == [ignored, counts, ignored, counts, ignored]


def test_a_record_that_lands_twice_counts_once_for_whoever_reads_on_from_a_position() -> None:
    reader = FeedReader()
    verdicts(reader, opening(1), entry(1, 1, 1))
    other = FeedReader(reader.position)
    assert verdicts(other, entry(1, 1, 1), entry(1, 2, 2)) == [FeedVerdict.IGNORED, FeedVerdict.COUNTS]


def test_a_missing_entry_is_said() -> None:
    by_number = FeedReader(FeedPosition(Offset(5), 1, 3))
    by_seq = FeedReader(FEED_START, {R1: Seq(3)})
    assert verdicts(by_number, entry(1, 5, 9)) == [FeedVerdict.GAP]
    assert verdicts(by_seq, entry(1, 5, 9), entry(1, 6, 10)) == [FeedVerdict.GAP, FeedVerdict.COUNTS]


def test_messages_that_the_log_lost_are_no_gap_when_the_feed_says_so() -> None:
    reader = FeedReader(FEED_START, {R1: Seq(3)})
    assert verdicts(reader, entry(1, 5, 9, after=3)) == [FeedVerdict.COUNTS]


def test_a_reader_whose_turns_opening_was_cut_takes_the_turn_from_its_entries() -> None:
    reader = FeedReader(FeedPosition(Offset(5), 1, 3))
    assert verdicts(reader, entry(4, 7, 2), entry(3, 9, 3)) == [FeedVerdict.COUNTS, FeedVerdict.IGNORED]


def test_a_feed_that_begins_again_elsewhere_keeps_the_turn_and_may_lack_something() -> None:
    reader = FeedReader(FeedPosition(Offset(5), 3, 3))
    reader.restart(Offset(0))
    assert reader.position == FeedPosition(Offset(0), 3, MISSING)
    told = verdicts(reader, opening(1), opening(4), entry(4, 1, 7), entry(4, 2, 8))
    assert told == [FeedVerdict.IGNORED, FeedVerdict.OPENED, FeedVerdict.GAP, FeedVerdict.COUNTS]


def test_an_unbound_repository_is_forgotten() -> None:
    reader = FeedReader(FEED_START, {R1: Seq(3)})
    unbind = FeedEntry(
        1, 1, CATALOGUE, Seq(2), Seq(1), "unbind", "", 1.0, body={"path": "a", "repository": R1}
    )
    assert verdicts(reader, unbind) == [FeedVerdict.COUNTS]
    assert reader.seqs == {CATALOGUE: 2}


def test_a_record_that_nobody_can_read_moves_the_position_only() -> None:
    reader = FeedReader(FeedPosition(Offset(5), 1, 3))
    reader.take_unreadable(Offset(6))
    assert reader.position == FeedPosition(Offset(6), 1, 3)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"", "feed.damaged"),
        (b"hgfleet-feed/2\n{}", "feed.too-new"),
        (b"hgfleet-feed/1\n[]", "feed.damaged"),
        (
            b'hgfleet-feed/1\n{"kind": "opening", "turn": -1, "host": "h", "life": "l", "at": 1}',
            "feed.damaged",
        ),
        (encode_feed_record(entry(1, 1, 1, after=1)), "feed.damaged"),
    ],
)
def test_what_is_no_record_is_said(wire: bytes, code: str) -> None:
    with pytest.raises(PoisonError) as caught:
        decode_feed_record(wire)
    assert caught.value.code == code
