"""Exposure and membership keep their promises, and each plausible wrong rule is found out.

The stateful test walks at random through all that mirrors, coordinators, the load balancer *and* the log's
agents can do next: what the mirrors apply is what the pushes of the same walk appended. The wrong rules are
played through one schedule each: every step of it can be taken and the last breaks the promise named there;
the right rules keep all promises in the same schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hgfleet.model.acceptance import Verdict
from hgfleet.model.coordination import Coordinator, Step
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Claim, Decision, Member, StateRecord
from hgfleet.model.ids import NO_DIGEST, Offset, RepoId, Seq
from hgfleet.model.membership import Membership
from hgfleet.model.message import Kind, Message
from hgfleet.model.standing import Standing, manifest_body
from hgfleet.model.succession import Succession
from tests.support.messages import R1, message, snapshot_message
from tests.support.protocol_fleet import FleetRules, FleetWorld, Mirror
from tests.support.protocol_log import LogWorld
from tests.support.protocol_play import Steps, broken_promise, play

CLAIM = ["a coordinator starts", "c1 acts", "c1 acts", "land c1.claim", "c1 hears*"]


def come_up(mirror: str) -> list[str]:
    return [
        *(f"{mirror} starts", f"{mirror} lands*", "c1 hears*", "c1 acts", f"land c1.admit.{mirror}"),
        *("c1 hears*", f"{mirror} hears*", f"{mirror} serves", f"{mirror} lands*"),
        f"the balancer looks at {mirror}",
    ]


UP = [*CLAIM, *come_up("m1"), *come_up("m2"), "c1 hears*"]
MOVE = ["c1 hears*", "c1 acts", "land c1.watermark.A1", "c1 hears*"]
SHOW = ["m1 hears*", "m1 exposes A", "m1 lands*"]
BOTH_APPLY = ["push to A", "m2 applies A", "m1 applies A", "m1 lands*", "m2 lands*"]


SERVE = ["start on x", "L1 bids", "land L1.bid", "L1 reads cat", "L1 wins"]
for _p in ("p0", "p1"):
    SERVE += [f"L1 opens {_p}", f"land L1.epoch.{_p}", f"L1 reads {_p}", f"L1 completes {_p}"]


class WholeWorld(FleetWorld):
    """Mirrors that apply what the agents of a log world append."""

    def __init__(self) -> None:
        super().__init__(head=0)
        self.log_world = LogWorld()

    def steps(self) -> Steps:
        return {f"log: {name}": step for name, step in self.log_world.steps().items()} | super().steps()

    def can_apply(self, mirror: Mirror, repository: RepoId) -> bool:
        offset = self.log_world.copy(mirror.host, repository).reader.position.offset
        return offset < len(self.log_world.log[self.log_world.where(repository)])

    def apply(self, mirror: Mirror, repository: RepoId) -> None:
        self.log_world.catch_up(mirror.host, repository)
        seq = self.log_world.copy(mirror.host, repository).head.seq
        if seq > mirror.applied[repository]:
            mirror.applied[repository] = seq
            self.send(mirror, mirror.report(repository))

    def wipe(self, mirror: Mirror) -> None:
        super().wipe(mirror)
        for key in [key for key in self.log_world.copies if key[0] == mirror.host]:
            del self.log_world.copies[key]

    def check(self) -> None:
        super().check()
        self.log_world.check()


SORTS = {
    "log: L": 3.0,
    "log: land": 2.0,
    "log: push": 2.0,
    "log: create": 0.3,
    "log: start": 0.3,
    "push ": 1.0,
    "land ": 5.0,
    " lands": 6.0,
    " hears": 6.0,
    " acts": 5.0,
    " applies ": 4.0,
    " exposes ": 4.0,
    " serves": 4.0,
    " beats": 1.0,
    " looks ": 1.0,
    "tick": 0.15,
    "m1 starts": 0.05,
    "m2 starts": 0.05,
    "m3 starts": 0.05,
    " starts over": 1.0,
    "coordinator starts": 0.04,
    " answers ": 2.0,
    " unparks ": 0.5,
    " resumes": 0.3,
    " parks ": 0.1,
    " refuses": 1.0,
    " pauses": 0.05,
    " drains": 0.03,
    "c1 dies": 0.01,
    "c2 dies": 0.01,
    " leaves": 0.01,
}


class AnyStep(RuleBasedStateMachine):
    """Walks: draws a sort of step, then one of that sort among those that can happen next, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.world: FleetWorld = FleetWorld()

    @initialize(seed=st.integers(0, 2**64), is_whole=st.booleans(), floor=st.sampled_from([1, 1, 2]))
    def begin(self, seed: int, is_whole: bool, floor: int) -> None:
        self.world = WholeWorld() if is_whole else FleetWorld(mirrors=3, floor=floor, head=5)
        if seed % 4:
            assert play(self.world, UP) == []
            if is_whole:
                assert play(self.world, [f"log: {name}" for name in SERVE]) == []
        self.walk(seed)

    @rule(seed=st.integers(0, 2**64))
    def walk(self, seed: int) -> None:
        random = Random(seed)
        for _ in range(300):
            if not any(seat.is_up for seat in self.world.seats) and self.world.budget.seats:
                self._take("a coordinator starts")
            steps = self.world.steps()
            sorts = [sort for sort in SORTS if any(sort in name for name in steps)]
            (sort,) = random.choices(sorts, [SORTS[sort] for sort in sorts])
            self._take(random.choice([name for name in steps if sort in name]))

    @rule()
    def hear_all(self) -> None:
        while names := [
            n for n in self.world.steps() if n.endswith((" hears", " lands")) or n[:5] == "land "
        ]:
            self._take(names[0])

    def _take(self, name: str) -> None:
        note(name)
        self.world.steps()[name]()
        self.world.check()


TestAnyStep = AnyStep.TestCase
TestAnyStep.settings = settings(
    max_examples=40,
    stateful_step_count=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # the steps are printed; making them fewer takes minutes
    suppress_health_check=list(HealthCheck),
)


def test_the_good_case_ends_well() -> None:
    world = FleetWorld()
    assert play(world, [*UP, *BOTH_APPLY, *MOVE, *SHOW, "m2 hears*", "m2 exposes A", "m2 lands*"]) == []
    repository = RepoId("a" * 32)
    assert world.all_seen.visible(repository, Seq(1)).is_visible
    assert [mirror.answers(repository) for mirror in world.mirrors.values()] == [True, True]


def test_a_parked_copy_comes_back_into_service() -> None:
    world = FleetWorld()
    park = ["m2 parks A", "push to A", "m1 applies A", "m1 lands*", "m2 lands*", *MOVE, *SHOW]
    back = [
        "m2 hears*",
        "m2 unparks A",
        "m2 lands*",
        "m2 hears*",
        "m2 answers A",
        "m2 applies A",
        "m2 lands*",
    ]
    count = ["c1 hears*", "c1 acts", "land c1.recount.m2", "m2 hears*", "m2 answers A"]
    level = ["m2 exposes A", "m2 answers A"]
    assert play(world, [*UP, *park, *back, *count, *level]) == ["m2 answers A", "m2 answers A"]


def test_a_coordinator_elsewhere_takes_over_after_a_silent_lease_and_the_old_one_is_fenced() -> None:
    world = FleetWorld()
    late = ["push to A", "m1 applies A", "m1 lands*", "m2 applies A", "m2 lands*", "c1 hears*", "c1 acts"]
    beats = ["tick", "m1 beats", "m2 beats", "m1 lands*", "m2 lands*"] * 6
    claim = ["c2 hears*", "c2 acts", "c2 acts", "land c2.claim", "land c1.watermark.A1"]
    move = ["c2 hears*", "c2 acts", "land c2.watermark.A1", "c1 hears*"]
    start = ["another coordinator starts", "c2 acts", "c2 hears*", "c2 acts", "land c1.sign", "c2 hears*"]
    assert play(world, [*UP, *late, *start, *beats, *claim]) == []
    assert world.all_seen.watermark(RepoId("a" * 32)) == 0
    assert play(world, [*move, "c1 acts"]) == []
    assert world.all_seen.watermark(RepoId("a" * 32)) == 1
    assert [seat.is_up for seat in world.seats] == [False, True]


def test_a_mirror_on_an_empty_disk_joins_anew() -> None:
    world = FleetWorld()
    steps = [
        *UP,
        *BOTH_APPLY,
        *MOVE,
        *SHOW,
        "m2 starts on an empty disk",
        "m2 lands*",
        "c1 hears*",
        "c1 acts",
    ]
    join = ["land c1.evict.m2", "c1 hears*", "m2 applies A", "m2 lands*", "c1 hears*", "c1 acts"]
    serve = ["land c1.admit.m2", "m2 hears*", "m2 serves", "m2 exposes A", "m2 serves"]
    assert play(world, [*steps, *join, *serve]) == ["m2 serves"]


# -- the wrong rules


class ServesWhenCounted(Membership):
    """Serves as soon as it is admitted, whatever it has exposed."""

    def may_serve(self, view: FleetView, exposed: Callable[[RepoId], Seq]) -> bool:
        return view.is_counted(self.member)


class RenewsAnyTime(Membership):
    """Goes on after a lapse as if nothing had been."""

    def is_lapsed(self, now: float) -> bool:
        return False


class AnswersAtOnce(Membership):
    """Answers for a copy that is well again without a look at what was decided meanwhile."""

    def may_answer(self, view: FleetView, repository: RepoId, exposed: Seq) -> bool:
        return True


class EvictsBlindly(Coordinator):
    """Trusts its own timer without reading to the end."""

    def _silent(self, now: float) -> set[Member]:
        return self._overdue(now)


class DoesNotReadBack(Coordinator):
    """Decides again before it has read its last decision."""

    def _send(self, decisions: list[Decision]) -> Step:
        step = super()._send(decisions)
        self._unread.clear()
        return step


class BelievesAnyClaim(FleetView):
    """Takes a decision from whoever made it."""

    def take(self, key: str, value: Any, offset: Any) -> StateRecord | None:
        record = super().take(key, value, offset)
        if isinstance(record, Decision) and record.ticket.claim != self.claim:
            self._take_decision(record)
        return record


RIGHT = FleetRules()
ONE_EXPOSED = ["push to A", "m1 applies A", "m1 lands*", *MOVE, *SHOW]
SILENT_M2 = [
    *("push to A", "m2 applies A", "m2 lands*", "c1 hears*", "m2 pauses", "tick", "tick", "tick"),
    *("m1 beats", "m1 lands*", "c1 hears*", "tick", "tick", "tick", "c1 acts", "c1 acts"),
    *("land c1.evict.m2", "m1 applies A", "m1 lands*", *MOVE, "m1 hears*", "m1 exposes A"),
]


class ClaimsBlindly(Succession):
    """Trusts its own timer without reading to the end."""

    def _has_read_to_end(self, offset: Offset) -> bool:
        return True


class StandsByBlindly(Coordinator):
    """A coordinator like that."""

    def __init__(self, claim: Claim, lease_seconds: float, floor: int) -> None:
        super().__init__(claim, lease_seconds, floor)
        self._succession = ClaimsBlindly(claim, lease_seconds)


WRONG: dict[str, tuple[FleetRules, list[str], str]] = {
    "a mirror serves when it is level, counted or not": (
        replace(RIGHT, is_level_enough=True),
        [
            *(*CLAIM, *come_up("m1"), "m2 starts", "m2 serves", "push to A", "m2 applies A"),
            *("m1 applies A", "m1 lands*", *MOVE, "m2 lands", "the balancer looks at m2", "m1 hears*"),
            *("m1 exposes A", "m1 lands"),
        ],
        "R3",
    ),
    "a mirror serves when it is counted, exposed or not": (
        replace(RIGHT, membership=ServesWhenCounted),
        [
            *(*CLAIM, *come_up("m1"), *ONE_EXPOSED, "m2 starts", "m2 applies A", "m2 lands*", "c1 hears*"),
            *(
                "c1 acts",
                "land c1.admit.m2",
                "m2 hears*",
                "m2 serves",
                "m2 lands*",
                "the balancer looks at m2",
            ),
        ],
        "R3",
    ),
    "a lapsed lease is renewed": (
        replace(RIGHT, membership=RenewsAnyTime),
        [*UP, *SILENT_M2, "m1 lands", "m2 resumes", "m2 beats", "m2 lands", "the balancer looks at m2"],
        "R3",
    ),
    "readiness is what a loop found": (
        replace(RIGHT, is_readiness_cached=True),
        [*UP, *SILENT_M2, "m1 lands"],
        "R3",
    ),
    "a member is evicted without a look at a fresh end": (
        replace(RIGHT, coordinator=EvictsBlindly),
        [
            *(*UP, "tick", "tick", "tick", "m1 beats", "m1 lands*", "c1 hears*", "m2 beats", "m2 lands*"),
            *("tick", "tick", "tick", "c1 acts", "land c1.evict.m2", *BOTH_APPLY, *MOVE, "m1 hears*"),
            *("m1 exposes A", "m1 lands"),
        ],
        "R3",
    ),
    "a mirror reports that it parked and refuses afterwards": (
        replace(RIGHT, is_refusal_late=True),
        [
            *(
                *UP,
                "m2 parks A",
                "push to A",
                "m1 applies A",
                "m2 applies A",
                "m1 lands*",
                "m2 lands*",
                *MOVE,
            ),
            *("m1 hears*", "m1 exposes A", "m1 lands"),
        ],
        "R3",
    ),
    "a mirror reports that it drains and refuses afterwards": (
        replace(RIGHT, is_refusal_late=True),
        [
            *(*UP, "m2 applies A*", "push to A", "m2 applies A", "m2 drains", "m2 lands*", "c1 hears*"),
            *("c1 acts", "land c1.evict.m2", "m1 applies A", "m1 lands*", *MOVE, "m1 hears*"),
            *("m1 exposes A", "m1 lands"),
        ],
        "R3",
    ),
    "a copy that is well again answers at once": (
        replace(RIGHT, membership=AnswersAtOnce),
        [
            *(*UP, "m2 parks A", "m2 lands*", *ONE_EXPOSED, "m2 applies A", "m2 unparks A", "m2 answers A"),
        ],
        "R3",
    ),
    "a decision of an older claim counts": (
        replace(RIGHT, view=BelievesAnyClaim),
        [
            *(*CLAIM, *come_up("m1"), "push to A", "m1 applies A", "m1 lands*", "c1 hears*", "c1 acts"),
            *("a coordinator starts", "c2 acts", "c2 hears*", "c2 acts", "land c2.claim"),
            *("m2 starts", "m2 lands*", "c2 hears*"),
            *("c2 acts", "land c2.admit.m2", "land c1.watermark.A1"),
        ],
        "WmOk",
    ),
    "a coordinator claims without a look at a fresh end": (
        replace(RIGHT, coordinator=StandsByBlindly),
        [
            *("a coordinator starts", "c1 acts", "land c1.claim", "c1 hears*"),
            *("another coordinator starts", "c2 hears*", "c2 acts", *["tick"] * 5, "c1 acts"),
            *("land c1.sign", "tick", "c2 acts"),
        ],
        "Calm",
    ),
    "the next decision does not wait for the last": (
        replace(RIGHT, coordinator=DoesNotReadBack),
        [
            *(*CLAIM, *come_up("m1"), "push to A", "m1 applies A", "m1 lands*", "c1 hears*", "c1 acts"),
            *("m2 starts", "m2 lands*", "c1 hears*", "c1 acts", "land c1.admit.m2", "land c1.watermark.A1"),
        ],
        "WmOk",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_breaks_a_promise(name: str) -> None:
    rules, schedule, promise = WRONG[name]
    assert broken_promise(FleetWorld(rules), schedule) == promise


@pytest.mark.parametrize("name", WRONG)
def test_the_right_rules_keep_all_promises_in_the_same_schedule(name: str) -> None:
    play(FleetWorld(), WRONG[name][1])


# -- late snapshots and manifests


class LastLands(Standing):
    """Takes what was read last for what is in force."""

    def _take_snapshot(self, message: Message) -> bool:
        self.snapshots = [message, *self.snapshots][:2]
        return True

    def _take_manifest(self, message: Message) -> bool:
        self.manifest = message
        return True


def missing_blobs(standing: Standing) -> set[str]:
    """Two snapshots and two manifests are made, what they replace is deleted, an early one lands late."""
    made = [snapshot_message(seq) for seq in (3, 6, 9)]
    first = message(Kind.BUNDLES, R1, 3, body={"blob": "m1"} | manifest_body(NO_DIGEST, []))
    late = message(Kind.BUNDLES, R1, 3, body={"blob": "m0"} | manifest_body(NO_DIGEST, []))
    second = message(Kind.BUNDLES, R1, 6, body={"blob": "m2"} | manifest_body(first.digest, []))
    deleted = {"s3", "m0", "m1"}
    for one in [made[1], first, made[2], second, made[0], late]:
        standing.take(one, Verdict.ABOUT)
    in_force = [*standing.snapshots, *([standing.manifest] if standing.manifest else [])]
    return {str(one.envelope.body.get("blob") or f"s{one.envelope.seq}") for one in in_force} & deleted


def test_a_late_snapshot_or_manifest_names_deleted_blobs_only_under_the_wrong_rule() -> None:
    assert missing_blobs(Standing()) == set()
    assert missing_blobs(LastLands()) == {"s3", "m0"}
