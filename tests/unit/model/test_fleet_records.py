"""The state topic's records: read back as they were, anything else is no record."""

from typing import Any

import pytest

from hgfleet.model.feed_marks import FeedMark, FeedPlace
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Evict,
    Heartbeat,
    LifeSign,
    Member,
    Recount,
    Report,
    Stage,
    StateRecord,
    Ticket,
    Watermark,
    parse_member_key,
    parse_record,
    parse_report_key,
)
from hgfleet.model.ids import HostName, Offset, Seq
from hgfleet.model.wishes import Wish
from tests.support.messages import R1

MEMBER = Member(HostName("mirror-1"), 3)
TICKET = Ticket(Offset(7), 2)
RECORDS: list[StateRecord] = [
    Heartbeat(MEMBER, Stage.JOINING, "1.0", 2),
    Report(MEMBER, R1, Seq(5), Seq(4)),
    Report(MEMBER, R1, Seq(5), Seq(4), parked="fork", parks=3),
    Report(MEMBER, R1, is_deleted=True),
    Claim(HostName("one"), "abc"),
    Watermark(TICKET, R1, Seq(4)),
    Admit(TICKET, MEMBER),
    Evict(TICKET, MEMBER),
    Recount(TICKET, MEMBER, R1, 2),
    LifeSign(Offset(7), HostName("one"), 1.5, True, 3, 1.25),
    FeedMark(4, R1, Seq(5)),
    FeedPlace(4, Offset(9), 3),
    Wish(HostName("one"), is_drained=True, identity="host:two"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.key)
def test_a_record_is_read_back(record: StateRecord) -> None:
    assert parse_record(record.key, dict(record.value)) == record


def test_every_writer_has_keys_of_its_own() -> None:
    later = Member(MEMBER.host, 4)
    other = Ticket(Offset(8), 2)
    keys = [r.key for r in RECORDS if not isinstance(r, Report)] + [
        Report(MEMBER, R1).key,
        Heartbeat(later, Stage.JOINING).key,
        Report(later, R1).key,
        Watermark(other, R1, Seq(4)).key,
        Watermark(Ticket(Offset(7), 3), R1, Seq(4)).key,
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", {}),
        ("member", {}),
        ("member/one/1", {"stage": "sleeping", "release": "", "feature_level": 0}),
        ("member/one/1", {"stage": "joining", "release": 1, "feature_level": 0}),
        ("member/one/-1", {"stage": "joining", "release": "", "feature_level": 0}),
        ("member/one/01", {"stage": "joining", "release": "", "feature_level": 0}),
        ("member/ONE/1", {"stage": "joining", "release": "", "feature_level": 0}),
        ("report/one/1/x", {"applied": 1, "exposed": 1, "parked": "", "is_deleted": False, "parks": 0}),
        (f"report/one/1/{R1}", {"applied": -1, "exposed": 1, "parked": "", "is_deleted": False, "parks": 0}),
        (
            f"report/one/1/{R1}",
            {"applied": 1, "exposed": True, "parked": "", "is_deleted": False, "parks": 0},
        ),
        (f"report/one/1/{R1}", {"applied": 1, "exposed": 1, "parked": None, "is_deleted": False, "parks": 0}),
        (f"report/one/1/{R1}", {"applied": 1, "exposed": 1, "parked": "", "is_deleted": False}),
        (f"recount/1/1/one/1/{R1}", {}),
        (f"watermark/1/1/{R1}", {"seq": "1"}),
        (f"watermark/1/1/{R1}", None),
        (f"watermark/1/{R1}", {"seq": 1}),
        ("admit/1/1/one/1/more", {}),
        ("admit/x/1/one/1", {}),
        ("evict/1/1/one/" + "9" * 30, {}),
        ("evict/1/1/one/", {}),
        ("evict/1/1/one/²", {}),
        ("wish/one", {"is_drained": 1, "identity": ""}),
        ("wish/one", {"is_drained": True, "identity": None}),
        ("wish/one/1", {"is_drained": True, "identity": ""}),
        ("wish/ONE", {"is_drained": True, "identity": ""}),
        ("else/1", {}),
        ("claim/one/a", []),
    ],
)
def test_what_this_release_cannot_read_is_no_record(key: str, value: Any) -> None:
    assert parse_record(key, value) is None


def test_keys_name_members_in_tombstones_too() -> None:
    assert [parse_member_key(record.key) for record in RECORDS] == [
        *[MEMBER] * 4,
        None,
        None,
        *[MEMBER] * 3,
        *[None] * 4,
    ]
    assert parse_report_key(Report(MEMBER, R1).key) == (MEMBER, R1)
    assert parse_report_key("report/one/1/x") is None
    assert parse_report_key("member/one/1") is None
    assert parse_member_key("member/one/x") is None
