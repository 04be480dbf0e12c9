"""What the log agent keeps in memory of what it has just read."""

from __future__ import annotations

from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import Record
from hgfleet.replication.agent_recent import RecentRecords

PLACE = Topic.PUSHDATA, Partition(3)


def records(*offsets: int, size_bytes: int = 1) -> list[Record]:
    """Records at these offsets; every other offset of the topic is none of a record's (Kafka has such)."""
    return [
        Record(Offset(offset), Offset(offset + 2), b"", bytes([offset]) * size_bytes, 0.0)
        for offset in offsets
    ]


def offsets_of(found: list[Record] | None) -> list[int] | None:
    return None if found is None else [record.offset for record in found]


def test_nothing_is_known_of_a_place_before_anything_was_read() -> None:
    assert RecentRecords().since(PLACE, Offset(0)) is None
    assert RecentRecords().at(PLACE, [Offset(0)]) is None
    assert RecentRecords().at(PLACE, []) == []


def test_what_was_read_is_given_from_any_offset_that_is_not_older() -> None:
    recent = RecentRecords()
    recent.note(PLACE, records(10, 12))
    recent.note(PLACE, records(14))
    recent.note((Topic.PUSHDATA, Partition(4)), records(1))
    assert offsets_of(recent.since(PLACE, Offset(9))) is None
    assert offsets_of(recent.since(PLACE, Offset(10))) == [10, 12, 14]
    assert offsets_of(recent.since(PLACE, Offset(13))) == [14]
    assert offsets_of(recent.since(PLACE, Offset(16))) == []
    assert recent.at(PLACE, [Offset(10), Offset(14)]) == [b"\n", b"\x0e"]
    assert recent.at(PLACE, [Offset(10), Offset(11)]) is None
    assert recent.at(PLACE, [Offset(8), Offset(10)]) is None


def test_old_records_make_room_and_the_newest_always_stays() -> None:
    recent = RecentRecords(kept_bytes=10)
    recent.note(PLACE, records(0, 2, 4, size_bytes=4))
    assert offsets_of(recent.since(PLACE, Offset(2))) == [2, 4]
    assert recent.since(PLACE, Offset(0)) is None
    recent.note(PLACE, records(6, size_bytes=100))
    assert offsets_of(recent.since(PLACE, Offset(6))) == [6]
    assert recent.at(PLACE, [Offset(4), Offset(6)]) is None
