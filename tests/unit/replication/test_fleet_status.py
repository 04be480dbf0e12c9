"""What the state topic says, for people."""

from __future__ import annotations

from dataclasses import replace

from hgfleet.model.feed_marks import FeedPlace
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Heartbeat,
    LifeSign,
    Member,
    Report,
    Stage,
    StateRecord,
    Ticket,
    Watermark,
)
from hgfleet.model.ids import HostName, Offset, RepoId, Seq
from hgfleet.replication.fleet_status import describe_fleet
from hgfleet.runtime import clock

ONE, TWO = Member(HostName("one"), 1), Member(HostName("two"), 4)
A, B = RepoId("a" * 32), RepoId("b" * 32)


def _view(*records: StateRecord) -> FleetView:
    view = FleetView()
    for offset, record in enumerate((Claim(HostName("p"), "l"), *records)):
        view.take(record.key, record.value, Offset(offset))
    return view


def test_the_worst_lag_comes_first_and_level_repositories_are_left_out() -> None:
    ticket = Ticket(Offset(0), 1)
    view = _view(
        Heartbeat(ONE, Stage.SERVING, "1.0"),
        Heartbeat(TWO, Stage.JOINING, "1.1"),
        Admit(ticket, ONE),
        Admit(ticket, TWO),
        Report(ONE, A, Seq(5), Seq(5)),
        Report(TWO, A, Seq(5), Seq(5)),
        Report(ONE, B, Seq(9), Seq(2)),
        Report(TWO, B, Seq(3), Seq(3), parked=""),
        Watermark(ticket, B, Seq(3)),
    )
    status = describe_fleet(view)
    assert [row["repository"] for row in status["lag"]] == [B]
    assert status["lag"][0]["lag"] == 7
    assert status["lag"][0]["hosts"] == {"one": 2, "two": 3}
    assert [(m["host"], m["stage"], m["is_counted"]) for m in status["members"]] == [
        ("one", "serving", True),
        ("two", "joining", True),
    ]
    assert status["parked"] == []


def test_a_parked_copy_is_named_with_its_reason_and_delays_nobody() -> None:
    ticket = Ticket(Offset(0), 1)
    view = _view(
        Heartbeat(ONE, Stage.SERVING),
        Heartbeat(TWO, Stage.SERVING),
        Admit(ticket, ONE),
        Admit(ticket, TWO),
        Report(ONE, A, Seq(5), Seq(5)),
        Report(TWO, A, Seq(1), Seq(1), parked="state.differs: x"),
    )
    status = describe_fleet(view)
    assert status["lag"] == []
    assert status["parked"] == [{"host": "two", "repository": A, "reason": "state.differs: x"}]


def test_who_decides_and_how_far_the_feed_is() -> None:
    assert describe_fleet(_view())["coordinator"] is None
    assert describe_fleet(_view())["feed"] is None
    sign = LifeSign(Offset(0), HostName("p"), clock.now() - 3)
    late = replace(sign, feed_behind=3, feed_behind_since=clock.now() - 20)
    told = describe_fleet(_view(late, FeedPlace(2, Offset(9), 4)))
    assert told["coordinator"]["host"] == "p"
    assert 3 <= told["coordinator"]["silent_seconds"] < 13
    assert (told["feed"]["turn"], told["feed"]["behind"]) == (2, 3)
    assert 20 <= told["feed"]["behind_seconds"] < 30
    assert describe_fleet(_view(sign))["feed"]["behind_seconds"] == 0
