"""The fold of the state topic, and the brains of coordinator and mirror on top of it."""

from typing import Any

import pytest

from hgfleet.model.coordination import Act, Coordinator, Step
from hgfleet.model.feed_marks import FeedMark, FeedPlace
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Evict,
    Heartbeat,
    Member,
    Recount,
    Report,
    Stage,
    StateRecord,
    Ticket,
    Watermark,
)
from hgfleet.model.ids import CATALOGUE, HostName, Offset, RepoId, Seq
from hgfleet.model.membership import Membership, exposable
from hgfleet.model.succession import FRESH, Heritage
from tests.support.messages import R1, R2

A, A2, B = Member(HostName("a"), 1), Member(HostName("a"), 2), Member(HostName("b"), 1)
LEASE = 10.0


def beat(member: Member, stage: Stage = Stage.JOINING) -> Heartbeat:
    return Heartbeat(member, stage)


def report(
    member: Member,
    repository: RepoId,
    applied: int,
    exposed: int = 0,
    parked: str = "",
    *,
    gone: bool = False,
    parks: int = 0,
) -> Report:
    return Report(member, repository, Seq(applied), Seq(exposed), parked, gone, parks or int(bool(parked)))


class Topic:
    """The state topic, one coordinator and any number of readers."""

    def __init__(self, floor: int = 1) -> None:
        self.records: list[tuple[str, Any]] = []
        self.now = 0.0
        self.floor = floor
        self.coordinator = self.new_coordinator("c1")

    def new_coordinator(self, life: str, host: str = "c", heritage: Heritage = FRESH) -> Coordinator:
        return Coordinator(Claim(HostName(host), life), LEASE, self.floor, heritage)

    def put(self, *records: StateRecord) -> None:
        for record in records:
            self.put_raw(record.key, dict(record.value))

    def put_raw(self, key: str, value: Any) -> None:
        self.records.append((key, value))

    def view(self, *, is_compacted: bool = False) -> FleetView:
        view = FleetView()
        last = {key: number for number, (key, _) in enumerate(self.records)}
        for number, (key, value) in enumerate(self.records):
            if not is_compacted or (last[key] == number and value is not None):
                view.take(key, value, Offset(number))
        return view

    def read(self, coordinator: Coordinator) -> None:
        for number in range(coordinator.view.offset, len(self.records)):
            coordinator.take(*self.records[number], Offset(number), self.now)

    def step(self, coordinator: Coordinator | None = None) -> Step:
        """Return the coordinator's next step but signs of life, which are published."""
        coordinator = coordinator or self.coordinator
        self.read(coordinator)
        while (step := coordinator.next_step(self.now)).act is Act.SIGN:
            self.put(*step.records)
            self.read(coordinator)
        return step

    def step_to_claim(self, coordinator: Coordinator) -> Step:
        """Let the coordinator read to an end; return its step after that."""
        assert self.step(coordinator).act is Act.FETCH_END
        coordinator.note_end(Offset(len(self.records)))
        return self.step(coordinator)

    def run(self, coordinator: Coordinator | None = None) -> list[StateRecord]:
        """Do what the coordinator asks for until it waits; return what it decided."""
        coordinator = coordinator or self.coordinator
        decided: list[StateRecord] = []
        while (step := self.step(coordinator)).act is not Act.WAIT:
            assert step.act is not Act.STEP_DOWN
            if step.act is Act.FETCH_END:
                coordinator.note_end(Offset(len(self.records)))
            self.put(*step.records)
            for key in step.keys:
                self.put_raw(key, None)
            decided += step.records
        return decided


@pytest.fixture
def topic() -> Topic:
    topic = Topic()
    topic.run()
    return topic


def join(topic: Topic, member: Member, **applied: int) -> None:
    topic.put(beat(member))
    topic.put(*(report(member, {"r1": R1, "r2": R2}[name], n) for name, n in applied.items()))
    topic.run()


def ticket(topic: Topic, number: int) -> Ticket:
    claim = topic.coordinator.number
    assert claim is not None
    return Ticket(claim, number)


def test_the_watermark_is_what_all_counted_members_have_applied(topic: Topic) -> None:
    join(topic, A)
    join(topic, B)
    topic.put(report(A, R1, 3))
    assert topic.run() == []
    topic.put(report(B, R1, 2))
    assert topic.run() == [Watermark(ticket(topic, 3), R1, Seq(2))]
    topic.put(report(B, R1, 5))
    topic.run()
    assert topic.view().watermark(R1) == 3
    assert topic.view().watermark(R2) == 0


def test_many_watermarks_move_in_one_decision_that_is_read_back_before_the_next(topic: Topic) -> None:
    join(topic, A)
    topic.put(report(A, R1, 1), report(A, R2, 4), report(A, CATALOGUE, 9))
    step = topic.step()
    moves = {r.repository: r.seq for r in step.records if isinstance(r, Watermark)}
    assert moves == {R1: 1, R2: 4, CATALOGUE: 9}
    topic.put(report(A, R1, 2))
    assert topic.step() == Step(Act.WAIT)
    topic.put(*step.records[:2])
    assert topic.step() == Step(Act.WAIT)
    topic.put(step.records[2])
    assert topic.step().act is Act.DECIDE


def test_below_the_floor_the_watermark_stands_still() -> None:
    topic = Topic(floor=2)
    topic.run()
    join(topic, A)
    topic.put(report(A, R1, 1))
    assert topic.run() == []
    join(topic, B, r1=1)
    assert topic.view().watermark(R1) == 1


def test_a_parked_copy_is_not_waited_for(topic: Topic) -> None:
    join(topic, A)
    join(topic, B)
    topic.put(report(A, R1, 3, 0), report(B, R1, 1, 0, parked="fork"))
    topic.run()
    view = topic.view()
    assert view.watermark(R1) == 3
    topic.put(report(A, R1, 3, 3))
    assert topic.view().visible(R1, Seq(3)).is_visible
    topic.put(report(A, R1, 3, 3, parked="disk"))
    topic.run()
    assert topic.view().watermark(R1) == 3


def test_nobody_left_means_nothing_becomes_visible(topic: Topic) -> None:
    assert not topic.view().visible(R1, Seq(1)).is_visible
    join(topic, A)
    topic.put(report(A, R1, 3, 3, parked="fork"))
    topic.run()
    assert topic.view().watermark(R1) == 0
    assert not topic.view().visible(R1, Seq(1)).is_visible


def test_visible_names_who_is_late_and_stays_true(topic: Topic) -> None:
    join(topic, A)
    join(topic, B)
    topic.put(beat(A, Stage.SERVING), report(A, R1, 1, 1), report(B, R1, 1))
    seen = topic.view().visible(R1, Seq(1))
    assert (seen.is_visible, seen.mirrors, seen.late) == (False, ["a"], ["b"])
    topic.put(report(B, R1, 1, 1))
    assert topic.view().visible(R1, Seq(1)).is_visible
    topic.put(report(A, R1, 1, 1, parked="fork"), report(B, R1, 1, 0))
    seen = topic.view().visible(R1, Seq(1))
    assert (seen.is_visible, seen.late) == (True, [])
    assert topic.view().visible_seq(R1) == 1


def test_a_joining_member_is_admitted_when_level_and_serves_when_it_has_exposed(topic: Topic) -> None:
    join(topic, A, r1=3)
    assert topic.view().watermark(R1) == 3
    topic.put(beat(B), report(B, R1, 2))
    assert topic.run() == []
    topic.put(report(B, R1, 3))
    topic.put(report(A, R1, 4))
    assert topic.run()[0] == Admit(ticket(topic, 3), B)
    view = topic.view()
    assert view.due(B) == {R1: 3}
    mirror = Membership(B, 5.0)
    assert not mirror.may_serve(view, lambda _: Seq(2))
    assert mirror.may_serve(view, lambda _: Seq(3))
    assert not Membership(A2, 5.0).may_serve(view, lambda _: Seq(9))


def test_a_copy_that_is_well_again_is_counted_again_before_it_answers(topic: Topic) -> None:
    join(topic, A, r1=1)
    join(topic, B, r1=1)
    mirror = Membership(B, 5.0)
    topic.put(mirror.report(R1, Seq(1), Seq(1), "fork"), report(A, R1, 5))
    topic.run()
    assert topic.view().watermark(R1) == 5
    assert not mirror.may_answer(topic.view(), R1, Seq(1))
    topic.put(mirror.report(R1, Seq(4), Seq(1)))
    assert topic.run() == []
    topic.put(mirror.report(R1, Seq(5), Seq(1)))
    assert not mirror.may_answer(topic.view(), R1, Seq(5))
    assert topic.run() == [Recount(ticket(topic, 5), B, R1, 1)]
    view = topic.view()
    assert view.due(B)[R1] == 5
    assert not mirror.may_answer(view, R1, Seq(4))
    assert mirror.may_answer(view, R1, Seq(5))
    assert mirror.may_answer(view, R2, Seq(0))
    topic.put(report(A, R1, 6))
    assert topic.run() == []


def test_a_copy_parked_again_is_not_helped_by_an_older_recount(topic: Topic) -> None:
    join(topic, A, r1=1)
    mirror = Membership(A, 5.0)
    topic.put(mirror.report(R1, Seq(1), Seq(1), "fork"), mirror.report(R1, Seq(1), Seq(1)))
    late = topic.step()
    mirror.report(R1, Seq(1), Seq(1), "fork")
    topic.put(*late.records)
    assert not mirror.may_answer(topic.view(), R1, Seq(1))
    again = mirror.report(R1, Seq(1), Seq(1))
    assert again.parks == 2
    assert not mirror.may_answer(topic.view(), R1, Seq(1))
    topic.put(again)
    assert topic.run() == [Recount(ticket(topic, 4), A, R1, 2)]
    assert mirror.may_answer(topic.view(), R1, Seq(1))
    assert [key for key, value in dict(topic.records).items() if key.startswith("recount") and value] == [
        Recount(ticket(topic, 4), A, R1, 2).key
    ]


def test_a_copy_parked_at_the_join_is_recounted_too(topic: Topic) -> None:
    join(topic, A, r1=3)
    mirror = Membership(B, 5.0)
    topic.put(beat(B), mirror.report(R1, Seq(0), Seq(0), "missing"))
    topic.run()
    topic.put(mirror.report(R1, Seq(3), Seq(0)))
    assert topic.run() == [Recount(ticket(topic, 4), B, R1, 1)]


def test_a_copy_that_was_parked_at_admission_does_not_hold_the_others_back(topic: Topic) -> None:
    join(topic, A, r1=3, r2=2)
    topic.put(beat(B), report(B, R1, 1, 0, parked="fork"), report(B, R2, 2))
    assert topic.run() == [Admit(ticket(topic, 3), B)]
    exposed = {R1: 0, R2: 2}
    assert Membership(B, 5.0).may_serve(topic.view(), lambda r: Seq(exposed[r]))


def test_a_new_incarnation_replaces_the_old_one_without_waiting_for_its_lease(topic: Topic) -> None:
    join(topic, A, r1=1)
    topic.put(beat(A2), report(A2, R1, 0))
    assert topic.run() == [Evict(ticket(topic, 3), A)]
    topic.put(report(A2, R1, 1))
    assert topic.run() == [Admit(ticket(topic, 4), A2)]
    assert topic.view().counted == {A2}
    assert topic.view().next_incarnation(A.host) == 3
    assert topic.view().next_incarnation(B.host) == 1


def test_an_evicted_incarnation_never_comes_back(topic: Topic) -> None:
    join(topic, A, r1=1)
    topic.put(beat(A, Stage.DRAINING))
    assert topic.run() == [Evict(ticket(topic, 3), A)]
    topic.put(beat(A, Stage.SERVING), report(A, R1, 9), Admit(ticket(topic, 99), A))
    assert topic.run() == []
    view = topic.view()
    assert view.counted == set()
    assert view.is_out(A)
    assert Membership(A, 5.0).is_over(view, 0.0)


def test_a_draining_member_does_not_take_it_back(topic: Topic) -> None:
    join(topic, A)
    topic.put(beat(A, Stage.DRAINING), beat(A, Stage.SERVING))
    assert topic.run() == [Evict(ticket(topic, 2), A)]


def test_a_silent_member_is_evicted_after_its_lease_and_a_look_at_a_fresh_end(topic: Topic) -> None:
    join(topic, A)
    topic.now = 9.0
    assert topic.step() == Step(Act.WAIT)
    topic.now = 10.0
    assert topic.step() == Step(Act.FETCH_END)
    assert topic.step() == Step(Act.WAIT)
    topic.coordinator.note_end(Offset(len(topic.records)))
    assert topic.step().records == (Evict(ticket(topic, 2), A),)


def test_a_report_behind_which_the_coordinator_lagged_saves_the_member(topic: Topic) -> None:
    join(topic, A)
    topic.now = 30.0  # the coordinator slept; the member did not
    assert topic.step().act is Act.FETCH_END
    topic.put(beat(A))
    topic.coordinator.note_end(Offset(len(topic.records)))
    assert topic.coordinator.next_step(topic.now) == Step(Act.WAIT)
    assert topic.run() == []


def test_a_failed_look_at_the_end_is_repeated(topic: Topic) -> None:
    join(topic, A)
    topic.now = 10.0
    assert topic.step().act is Act.FETCH_END
    topic.coordinator.withdraw()
    assert topic.step().act is Act.FETCH_END


def test_a_new_coordinator_waits_one_lease_before_it_evicts(topic: Topic) -> None:
    join(topic, A)
    topic.now = 100.0
    second = topic.new_coordinator("c2")
    topic.run(second)
    assert second.lease_ends_at() == 110.0
    topic.now = 109.0
    assert topic.step(second) == Step(Act.WAIT)
    topic.now = 110.0
    assert topic.step(second) == Step(Act.FETCH_END)


def test_decisions_behind_a_newer_claim_do_not_count(topic: Topic) -> None:
    join(topic, A)
    topic.put(report(A, R1, 1))
    late = topic.step()
    second = topic.new_coordinator("c2")
    topic.put(*topic.step_to_claim(second).records)
    topic.put(*late.records)
    assert topic.view().watermark(R1) == 0
    assert topic.step().act is Act.STEP_DOWN
    assert topic.coordinator.is_deposed
    assert [type(r) for r in topic.run(second)] == [Watermark]


def test_what_the_log_did_not_take_is_decided_again_under_another_number(topic: Topic) -> None:
    join(topic, A)
    topic.put(report(A, R1, 1))
    first = topic.step()
    assert topic.step() == Step(Act.WAIT)
    topic.coordinator.withdraw()
    second = topic.step()
    assert second.records[0].key != first.records[0].key


def test_a_claim_the_log_did_not_take_is_sent_again() -> None:
    topic = Topic()
    coordinator = topic.coordinator
    assert topic.step_to_claim(coordinator).act is Act.CLAIM
    assert coordinator.next_step(0.0).act is Act.WAIT
    coordinator.withdraw()
    assert coordinator.next_step(0.0).act is Act.CLAIM
    assert coordinator.lease_ends_at() is None


def summary(view: FleetView) -> Any:
    return (
        view.counted,
        {r: view.watermark(r) for r in view.repositories()},
        view.claim,
        {m: view.stage(m) for m in view.counted},
    )


def test_compaction_changes_no_decision(topic: Topic) -> None:
    join(topic, A, r1=1, r2=1)
    join(topic, B, r1=1, r2=1)
    zombie = topic.coordinator
    topic.put(report(A, R1, 4, 1), report(B, R1, 3, 1))
    late = topic.step()
    topic.put(*late.records)
    topic.put(beat(A2), report(A2, R1, 4), report(A2, R2, 1))
    second = topic.new_coordinator("c2")
    topic.run(second)
    topic.put(report(A2, R1, 5), report(B, R1, 5))
    topic.run(second)
    topic.put(Watermark(Ticket(zombie.number or Offset(0), 50), R1, Seq(9)))
    topic.put(Evict(Ticket(zombie.number or Offset(0), 51), B))
    topic.run(second)
    assert summary(topic.view(is_compacted=True)) == summary(topic.view())
    assert topic.view().watermark(R1) == 5
    assert topic.view().counted == {A2, B}


def test_what_means_nothing_any_more_is_cleaned_away(topic: Topic) -> None:
    join(topic, A)
    for seq in range(1, 6):
        topic.put(report(A, R1, seq, seq))
        topic.run()
    topic.put(beat(A2), report(A2, R1, 5))
    topic.run()
    live = {key for key, value in dict(topic.records).items() if value is not None}
    assert sorted(key.split("/")[0] for key in live) == [
        "admit",
        "claim",
        "coordinator",
        "evict",
        "member",
        "report",
        "watermark",
    ]


def test_a_deleted_repository_is_waited_for_by_nobody_and_its_records_go(topic: Topic) -> None:
    join(topic, A, r1=1)
    join(topic, B, r1=1)
    topic.put(report(A, R1, 2, gone=True))
    topic.run()
    assert topic.view().watermark(R1) == 1
    assert list(topic.view().repositories()) == []
    topic.put(beat(Member(HostName("n"), 1)))
    assert topic.run() == [Admit(ticket(topic, 4), Member(HostName("n"), 1))]
    assert topic.view().due(Member(HostName("n"), 1)) == {}
    topic.put(report(B, R1, 2, gone=True))
    topic.run()
    assert not [key for key, value in dict(topic.records).items() if R1 in key and value is not None]
    assert not topic.view().report(A, R1)


def test_a_member_that_never_reported_on_a_repository_has_nothing_of_it(topic: Topic) -> None:
    join(topic, A)
    join(topic, B)
    topic.put(report(A, R1, 1, 0))
    topic.run()
    assert topic.view().watermark(R1) == 0
    assert topic.view().visible(R1, Seq(1)).late == ["a", "b"]


def test_unknown_records_change_nothing(topic: Topic) -> None:
    before = summary(topic.view())
    topic.put_raw("future/1", {"x": 1})
    topic.put_raw(f"watermark/0/9/{R1}", {"seq": "x"})
    topic.put_raw(f"watermark/0/9/{R1}", None)
    assert summary(topic.view()) == before
    assert topic.view().offset == len(topic.records)


@pytest.mark.parametrize(
    ("applied", "exposed", "watermark", "expected"),
    [(5, 1, 3, 3), (2, 1, 3, 2), (5, 4, 3, 4), (0, 0, 9, 0)],
)
def test_a_copy_shows_what_all_have_and_never_less_than_before(
    applied: int, exposed: int, watermark: int, expected: int
) -> None:
    assert exposable(Seq(applied), Seq(exposed), Seq(watermark)) == expected


def test_readiness_ends_by_itself_and_a_late_answer_does_not_renew_it() -> None:
    mirror = Membership(A, 5.0)
    assert not mirror.is_ready(0.0)
    assert mirror.acknowledge(1.0, 2.0)
    mirror.serve()
    assert mirror.lease_ends_at == 6.0
    assert mirror.is_ready(5.9)
    assert mirror.acknowledge(4.0, 5.0)
    assert mirror.is_ready(8.9)
    assert not mirror.is_ready(9.0)
    assert not mirror.acknowledge(8.0, 9.5)
    assert not mirror.is_ready(0.0)
    assert mirror.is_over(FleetView(), 0.0)


def test_an_answer_that_took_a_whole_lease_gives_none() -> None:
    mirror = Membership(A, 5.0)
    assert not mirror.acknowledge(1.0, 6.0)
    assert mirror.lease_ends_at == 0.0


def test_draining_is_for_good() -> None:
    mirror = Membership(A, 5.0)
    mirror.acknowledge(1.0, 1.0)
    mirror.serve()
    mirror.drain()
    mirror.serve()
    assert mirror.stage is Stage.DRAINING
    assert not mirror.is_ready(1.0)
    assert mirror.is_over(FleetView(), 1.0)


# -- the feed's marks


def test_the_highest_mark_of_the_feed_is_in_force_whoever_wrote_it() -> None:
    view = FleetView(is_cleaning=True)
    marks = [
        FeedMark(1, R1, Seq(3)),
        FeedMark(2, R1, Seq(5)),
        FeedMark(1, R1, Seq(4)),
        FeedMark(2, R2, Seq(1)),
        FeedPlace(2, Offset(9), 4),
        FeedPlace(1, Offset(20), 7),
    ]
    for offset, record in enumerate(marks):
        view.take(record.key, record.value, Offset(offset))
    assert view.feed.seqs() == {R1: 5, R2: 1}
    assert view.feed.place == FeedPlace(2, Offset(9), 4)
    assert list(view.superseded or ()) == [marks[0].key, "feed/1"]


def test_the_mark_of_an_unbound_repository_is_removed() -> None:
    view = FleetView(is_cleaning=True)
    for offset, record in enumerate([FeedMark(1, R1, Seq(3)), FeedMark(2, R1, Seq(3), is_over=True)]):
        view.take(record.key, record.value, Offset(offset))
    assert view.feed.seqs() == {}
    assert set(view.superseded or ()) == {f"feed/1/{R1}", f"feed/2/{R1}"}


def test_what_has_become_visible_is_told_once(topic: Topic) -> None:
    join(topic, A, r1=3)
    topic.coordinator.view.take_shown()
    topic.put(report(A, R1, 3, 2), report(A, R2, 1, 0))
    topic.run()
    assert topic.coordinator.view.take_shown() == {R1: 2}
    assert topic.coordinator.view.take_shown() == {}


# -- who may claim


def test_a_coordinator_on_another_host_stands_by_while_there_are_signs_of_life(topic: Topic) -> None:
    second = topic.new_coordinator("life", host="d")
    assert topic.step_to_claim(second).act is Act.WAIT
    for now in range(1, 50):
        topic.now = float(now)
        assert topic.step().act is Act.WAIT
        assert topic.step(second).act is Act.WAIT
    assert len([key for key, _ in topic.records if key.startswith("coordinator/")]) == 17


def test_after_a_silent_lease_and_a_look_at_a_fresh_end_it_claims(topic: Topic) -> None:
    second = topic.new_coordinator("life", host="d")
    topic.step_to_claim(second)
    topic.now = 9.0
    assert topic.step(second).act is Act.WAIT
    topic.now = 10.0
    assert topic.step_to_claim(second).act is Act.CLAIM


def test_a_sign_behind_which_it_lagged_keeps_it_standing_by(topic: Topic) -> None:
    second = topic.new_coordinator("life", host="d")
    topic.step_to_claim(second)
    topic.now = 30.0  # it slept; the other did not
    assert second.next_step(topic.now).act is Act.FETCH_END
    topic.step()
    second.note_end(Offset(len(topic.records)))
    assert second.next_step(topic.now).act is Act.WAIT
    assert topic.step(second).act is Act.WAIT


def test_where_the_holder_leaves_it_claims_at_once(topic: Topic) -> None:
    second = topic.new_coordinator("life", host="d")
    topic.step_to_claim(second)
    farewell = topic.coordinator.farewell()
    assert farewell is not None
    topic.put(farewell)
    assert topic.step(second).act is Act.CLAIM
    assert second.farewell() is None


def test_a_process_that_its_host_starts_again_claims_at_once(topic: Topic) -> None:
    assert topic.step_to_claim(topic.new_coordinator("life")).act is Act.CLAIM


def test_of_two_processes_on_one_host_the_second_takes_over_once(topic: Topic) -> None:
    second = topic.new_coordinator("c2")
    topic.run(second)
    assert topic.step().act is Act.STEP_DOWN
    again = topic.new_coordinator("c3", heritage=Heritage(frozenset({"c1"}), is_first=False))
    assert topic.step_to_claim(again).act is Act.WAIT
    topic.now = 10.0
    topic.step(second)
    assert topic.step(again).act is Act.WAIT


def test_a_later_life_of_a_process_takes_its_own_claim_up_again_at_once(topic: Topic) -> None:
    heritage = Heritage(frozenset({"c1"}), is_first=False)
    assert topic.step_to_claim(topic.new_coordinator("c2", heritage=heritage)).act is Act.CLAIM


def test_one_that_stood_by_evicts_who_was_silent_all_the_time_as_soon_as_it_has_claimed(topic: Topic) -> None:
    join(topic, A)
    second = topic.new_coordinator("life", host="d")
    topic.step_to_claim(second)
    topic.now = 10.0
    assert [type(r) for r in topic.run(second)] == [Claim, Evict]


def test_signs_that_nobody_needs_are_cleaned_away(topic: Topic) -> None:
    topic.now = 3.0
    topic.run()
    topic.run(topic.new_coordinator("c2"))
    live = [key for key, value in dict(topic.records).items() if value is not None]
    assert len([key for key in live if key.startswith("coordinator/")]) == 1
