"""What an operator is told of each mirror, and which one is not taken out without asking."""

from __future__ import annotations

from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Heartbeat,
    Member,
    Report,
    Stage,
    StateRecord,
    Ticket,
    Watermark,
)
from hgfleet.model.ids import HostName, Offset, RepoId, Seq
from hgfleet.model.wishes import Wish
from hgfleet.replication.mirror_list import MirrorRow, list_mirrors, why_not_drain
from tests.support.messages import R1, R2

A, B = HostName("a"), HostName("b")
IN_A, IN_B = Member(A, 1), Member(B, 1)


def view_of(*records: StateRecord) -> FleetView:
    view = FleetView()
    for offset, record in enumerate([Claim(HostName("c"), "life"), *records]):
        view.take(record.key, dict(record.value), Offset(offset))
    return view


def ticket(number: int) -> Ticket:
    return Ticket(Offset(0), number)


def report(member: Member, repository: RepoId, applied: int, exposed: int, parked: str = "") -> Report:
    return Report(member, repository, Seq(applied), Seq(exposed), parked, parks=int(bool(parked)))


def row(view: FleetView, host: HostName = A) -> MirrorRow:
    [found] = list_mirrors(view, [host])
    return found


def in_service(member: Member, number: int) -> list[StateRecord]:
    return [Heartbeat(member, Stage.JOINING), Admit(ticket(number), member), Heartbeat(member, Stage.SERVING)]


def test_a_mirror_that_nobody_has_heard_of_is_listed_with_what_starts_it() -> None:
    found = row(view_of())

    assert (found.stage, found.is_counted) == ("absent", False)
    assert "hgfleet run mirror" in found.waits_for


def test_a_mirror_in_service_waits_for_nothing() -> None:
    found = row(view_of(*in_service(IN_A, 1), report(IN_A, R1, 5, 5)))

    assert found.is_in_service
    assert (found.lag, found.waits_for) == (0, "")


def test_a_mirror_is_as_far_behind_as_in_its_worst_repository() -> None:
    view = view_of(
        *in_service(IN_A, 1),
        *in_service(IN_B, 2),
        report(IN_A, R1, 5, 4),
        report(IN_B, R1, 9, 5),
        report(IN_A, R2, 3, 3),
    )

    assert row(view).lag == 5


def test_a_joining_mirror_says_in_how_many_repositories_it_is_behind() -> None:
    behind = view_of(
        *in_service(IN_B, 1),
        report(IN_B, R1, 4, 4),
        Watermark(ticket(2), R1, Seq(4)),
        Heartbeat(IN_A, Stage.JOINING),
    )

    assert row(behind).waits_for == "1 repositories to be applied"


def test_a_joining_mirror_that_is_level_waits_for_the_coordinator_then_for_its_exposure() -> None:
    level = view_of(Heartbeat(IN_A, Stage.JOINING))
    counted = view_of(Heartbeat(IN_A, Stage.JOINING), Admit(ticket(1), IN_A))

    assert row(level).waits_for == "the coordinator to count it"
    assert "to be exposed" in row(counted).waits_for


def test_a_parked_repository_counts_not_as_lag_but_is_named() -> None:
    found = row(view_of(*in_service(IN_A, 1), report(IN_A, R1, 1, 1, "fork"), report(IN_B, R1, 9, 9)))

    assert (found.parked, found.lag) == ((R1,), 0)


def test_a_drained_mirror_says_what_brings_it_back() -> None:
    wish = Wish(A, is_drained=True)

    assert row(view_of(*in_service(IN_A, 1), wish)).stage == "draining"
    drained = row(view_of(wish))
    assert (drained.stage, drained.waits_for) == ("drained", "hgfleet mirror resume a")
    assert row(view_of(wish, Wish(A, is_drained=False))).stage == "absent"


def test_the_last_mirror_and_one_that_the_floor_needs_are_not_drained_without_asking() -> None:
    both = list_mirrors(view_of(*in_service(IN_A, 1), *in_service(IN_B, 2)), [A, B])
    one = list_mirrors(view_of(*in_service(IN_A, 1)), [A, B])

    assert why_not_drain(both, A, 1) == ""
    assert "below membership.floor" in why_not_drain(both, A, 2)
    assert "no mirror would be left" in why_not_drain(one, A, 1)
    assert why_not_drain(one, B, 1) == "", "it is not in service, so nobody loses it"
