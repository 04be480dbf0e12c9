"""A world of mirrors, coordinators and a load balancer around one state topic, in single steps.

The deciding is done by the product's own rules (`FleetRules`; a test may put a wrong one in). Records land
when somebody lets them, a dead process's too; one mirror's in the order it sent them. An applier may be
paused while its web workers go on answering; the load balancer looks at every mirror at least each second
tick.

Mirrors are `m1`, `m2`, `m3`; coordinators `c1`, `c2`, of one host unless "another" starts; repositories `A`
and `B`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from hgfleet.model.coordination import Act, Coordinator, Step
from hgfleet.model.fleet import FleetView
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
    Watermark,
)
from hgfleet.model.ids import HostName, Offset, RepoId, Seq
from hgfleet.model.membership import Membership, exposable
from tests.support.protocol_play import Steps, expect

A, B = RepoId("a" * 32), RepoId("b" * 32)
REPOSITORIES = {"A": A, "B": B}
STALE, DETECTION, LEASE = 4, 2, 6

Named = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class FleetRules:
    """What decides. Each field is the product's rule unless a test puts a wrong one in."""

    view: type[FleetView] = FleetView
    coordinator: type[Coordinator] = Coordinator
    membership: type[Membership] = Membership
    is_level_enough: bool = False  # a mirror serves when it has applied the log's end, counted or not
    is_readiness_cached: bool = False  # readiness is what the applier's loop last found
    is_refusal_late: bool = False  # a mirror reports that it parks or drains, and refuses reads afterwards


class Mirror:
    """One host: its applier (membership, view, copies) and its web workers (stage, lease, refused)."""

    def __init__(self, host: str) -> None:
        self.host = HostName(host)
        self.applied = {A: Seq(0), B: Seq(0)}
        self.exposed = {A: Seq(0), B: Seq(0)}
        self.parked: set[RepoId] = set()
        self.refused: set[RepoId] = set()
        self.to_refuse: list[RepoId | None] = []
        self.stage = Stage.JOINING
        self.lease_ends_at = 0.0
        self.was_ready = False
        self.is_routed = False
        self.is_paused = False
        self.membership: Membership | None = None
        self.view = FleetView()
        self.outbox: list[tuple[StateRecord, float]] = []
        self.incarnation = 0

    def report(self, repository: RepoId) -> Report:
        assert self.membership is not None
        parked = "damaged" if repository in self.parked else ""
        return self.membership.report(repository, self.applied[repository], self.exposed[repository], parked)

    def answers(self, repository: RepoId) -> bool:
        """In service: the load balancer routes to it and it does not refuse."""
        return self.is_routed and self.stage is Stage.SERVING and repository not in self.refused


@dataclass
class Seat:
    """One life of a coordinator."""

    name: str
    coordinator: Coordinator
    is_up: bool = True
    fetched_at: float | None = None  # when it last fetched the topic's end


@dataclass
class Sent:
    """A record on its way; value None is a tombstone."""

    name: str
    key: str
    value: Any


@dataclass
class Budget:
    """How often the rarer things may happen, so that a walk gets somewhere."""

    ticks: int = 60
    pauses: int = 2
    starts: int = 20
    parks: int = 3
    wipes: int = 1
    seats: int = 6


class FleetWorld:
    """Everything around the state topic; see the module."""

    def __init__(
        self, rules: FleetRules | None = None, *, mirrors: int = 2, floor: int = 1, head: int = 3
    ) -> None:
        self.rules = rules or FleetRules()
        self.floor = floor
        self.now = 0.0
        self.max_head = head
        self.head = {A: Seq(0), B: Seq(0)}
        self.topic: list[tuple[str, Any]] = []
        self.all_seen = self.rules.view()
        self.flying: list[Sent] = []
        self.mirrors = {f"m{n + 1}": Mirror(f"m{n + 1}") for n in range(mirrors)}
        self.seats: list[Seat] = []
        self.budget = Budget()
        self._compacted_at = 0
        self._holder: Claim | None = None  # of the newest claim
        self._signed_at: list[float] = []  # when it claimed, and when its signs of life landed
        self._is_holder_leaving = False

    # -- the topic

    def land(self, key: str, value: Any) -> None:
        record = self.all_seen.take(key, value, Offset(len(self.topic)))
        self.topic.append((key, value))
        if isinstance(record, Claim):
            self._holder, self._signed_at, self._is_holder_leaving = record, [self.now], False
        elif isinstance(record, LifeSign) and record.claim == self.all_seen.claim:
            self._signed_at.append(self.now)
            self._is_holder_leaving |= record.is_leaving

    def land_sent(self, sent: Sent) -> None:
        self.flying.remove(sent)
        self.land(sent.key, sent.value)

    # -- what can happen next

    def steps(self) -> Steps:
        steps: Steps = {}
        steps.update(self._topic_steps())
        for name, mirror in self.mirrors.items():
            steps.update(self._mirror_steps(name, mirror))
        for seat in self.seats:
            if seat.is_up:
                steps.update(self._seat_steps(seat))
        return steps

    def _topic_steps(self) -> Iterator[Named]:
        for sent in self.flying:
            yield f"land {sent.name}", partial(self.land_sent, sent)
        if self.budget.ticks:
            yield "tick", self.tick
        if self.budget.seats:
            yield "a coordinator starts", self.start_coordinator
            yield "another coordinator starts", partial(self.start_coordinator, is_elsewhere=True)
        for letter, repository in REPOSITORIES.items():
            if self.head[repository] < self.max_head:
                yield f"push to {letter}", partial(self.push, repository)

    def push(self, repository: RepoId) -> None:
        self.head[repository] = Seq(self.head[repository] + 1)

    def tick(self) -> None:
        self.budget.ticks -= 1
        self.now += 1
        if self.now % DETECTION == 0:
            for mirror in self.mirrors.values():
                self.look(mirror)

    def look(self, mirror: Mirror) -> None:
        """The load balancer asks a web worker, which looks at the clock."""
        is_ready = mirror.stage is Stage.SERVING and self.now < mirror.lease_ends_at
        mirror.is_routed = mirror.was_ready if self.rules.is_readiness_cached else is_ready

    # -- mirrors

    def _mirror_steps(self, name: str, mirror: Mirror) -> Iterator[Named]:
        yield f"the balancer looks at {name}", partial(self.look, mirror)
        if mirror.outbox:
            yield f"{name} lands", partial(self.land_first, mirror)
        if mirror.is_paused:
            yield f"{name} resumes", partial(setattr, mirror, "is_paused", False)
            return
        if self.budget.pauses and mirror.membership:
            yield f"{name} pauses", partial(self.pause, mirror)
        if self.budget.starts:
            yield f"{name} starts", partial(self.start, mirror)
            if self.budget.wipes and not mirror.outbox and mirror.membership:
                yield f"{name} starts on an empty disk", partial(self.start, mirror, is_wiped=True)
        if mirror.membership is not None:
            yield from self._applier_steps(name, mirror, mirror.membership)

    def _applier_steps(self, name: str, mirror: Mirror, membership: Membership) -> Iterator[Named]:
        if mirror.view.offset < len(self.topic):
            yield f"{name} hears", partial(self.hear, mirror)
        for repository_or_all in mirror.to_refuse[:1]:
            yield f"{name} refuses", partial(self.refuse, mirror, repository_or_all)
        if membership.is_over(mirror.view, self.now):
            yield f"{name} starts over", partial(self.start, mirror)
            return
        mirror.was_ready = mirror.stage is Stage.SERVING
        if len(mirror.outbox) < 4:
            yield f"{name} beats", partial(self.beat, mirror)
        if membership.stage is Stage.JOINING and self._may_serve(mirror, membership):
            yield f"{name} serves", partial(self.serve, mirror)
        if membership.stage is Stage.SERVING and self.budget.parks:
            yield f"{name} drains", partial(self.drain, mirror)
        for letter, repository in REPOSITORIES.items():
            yield from self._copy_steps(name, letter, mirror, repository)

    def _copy_steps(self, name: str, letter: str, mirror: Mirror, repository: RepoId) -> Iterator[Named]:
        assert mirror.membership is not None
        view = mirror.view
        if self.can_apply(mirror, repository):
            yield f"{name} applies {letter}", partial(self.apply, mirror, repository)
        if self._exposable(mirror, repository) > mirror.exposed[repository]:
            yield f"{name} exposes {letter}", partial(self.expose, mirror, repository)
        if repository in mirror.parked:
            yield f"{name} unparks {letter}", partial(self.unpark, mirror, repository)
        elif self.budget.parks:
            yield f"{name} parks {letter}", partial(self.park, mirror, repository)
        may_answer = mirror.membership.may_answer(view, repository, mirror.exposed[repository])
        if repository in mirror.refused - mirror.parked and may_answer:
            yield f"{name} answers {letter}", partial(mirror.refused.discard, repository)

    def _may_serve(self, mirror: Mirror, membership: Membership) -> bool:
        if self.rules.is_level_enough:
            return mirror.applied == self.head
        return membership.may_serve(mirror.view, lambda repository: mirror.exposed[repository])

    def _exposable(self, mirror: Mirror, repository: RepoId) -> Seq:
        applied, exposed = mirror.applied[repository], mirror.exposed[repository]
        return exposable(applied, exposed, mirror.view.watermark(repository))

    def send(self, mirror: Mirror, record: StateRecord) -> None:
        mirror.outbox.append((record, self.now))

    def beat(self, mirror: Mirror) -> None:
        assert mirror.membership is not None
        self.send(mirror, Heartbeat(mirror.membership.member, mirror.membership.stage))

    def land_first(self, mirror: Mirror) -> None:
        """The log takes the oldest record; the sender, if it is still there, gets the answer."""
        record, sent_at = mirror.outbox.pop(0)
        self.land(record.key, dict(record.value))
        membership = mirror.membership
        is_own = isinstance(record, Heartbeat) and membership and record.member == membership.member
        if membership and is_own and not mirror.is_paused:
            membership.acknowledge(sent_at, self.now)
            mirror.lease_ends_at = membership.lease_ends_at

    def start(self, mirror: Mirror, *, is_wiped: bool = False) -> None:
        """A new process: refuse reads, read the topic to its end, join as the next incarnation."""
        self.budget.starts -= 1
        mirror.stage, mirror.lease_ends_at, mirror.to_refuse = Stage.JOINING, 0.0, []
        mirror.was_ready = False
        mirror.parked, mirror.refused = set(), set()
        if is_wiped:
            self.budget.wipes -= 1
            self.wipe(mirror)
        mirror.view = self.rules.view()
        while mirror.view.offset < len(self.topic):
            self.hear(mirror)
        mirror.incarnation = max(mirror.incarnation + 1, mirror.view.next_incarnation(mirror.host))
        mirror.membership = self.rules.membership(Member(mirror.host, mirror.incarnation), STALE)
        self.beat(mirror)
        for repository in REPOSITORIES.values():
            self.send(mirror, mirror.report(repository))

    def wipe(self, mirror: Mirror) -> None:
        mirror.applied = {A: Seq(0), B: Seq(0)}
        mirror.exposed = {A: Seq(0), B: Seq(0)}

    def pause(self, mirror: Mirror) -> None:
        self.budget.pauses -= 1
        mirror.is_paused = True

    def hear(self, mirror: Mirror) -> None:
        offset = mirror.view.offset
        mirror.view.take(*self.topic[offset], offset)

    def can_apply(self, mirror: Mirror, repository: RepoId) -> bool:
        return mirror.applied[repository] < self.head[repository]

    def apply(self, mirror: Mirror, repository: RepoId) -> None:
        mirror.applied[repository] = Seq(mirror.applied[repository] + 1)
        self.send(mirror, mirror.report(repository))

    def expose(self, mirror: Mirror, repository: RepoId) -> None:
        seq = self._exposable(mirror, repository)
        expect("R2", mirror.exposed[repository] <= seq <= mirror.applied[repository], mirror.host)
        mirror.exposed[repository] = seq
        self.send(mirror, mirror.report(repository))

    def serve(self, mirror: Mirror) -> None:
        assert mirror.membership is not None
        if self.rules.is_level_enough:
            mirror.exposed = dict(mirror.applied)
        mirror.membership.serve()
        mirror.stage = Stage.SERVING
        self.beat(mirror)

    def refuse(self, mirror: Mirror, repository: RepoId | None) -> None:
        mirror.to_refuse.remove(repository)
        if repository is None:
            mirror.stage = Stage.DRAINING
        else:
            mirror.refused.add(repository)

    def park(self, mirror: Mirror, repository: RepoId) -> None:
        self.budget.parks -= 1
        mirror.parked.add(repository)
        mirror.to_refuse.append(repository)
        if not self.rules.is_refusal_late:
            self.refuse(mirror, repository)
        self.send(mirror, mirror.report(repository))

    def unpark(self, mirror: Mirror, repository: RepoId) -> None:
        mirror.parked.remove(repository)
        self.send(mirror, mirror.report(repository))

    def drain(self, mirror: Mirror) -> None:
        assert mirror.membership is not None
        self.budget.parks -= 1
        mirror.membership.drain()
        mirror.to_refuse.append(None)
        if not self.rules.is_refusal_late:
            self.refuse(mirror, None)
        self.beat(mirror)

    # -- coordinators

    def start_coordinator(self, *, is_elsewhere: bool = False) -> None:
        self.budget.seats -= 1
        name = f"c{len(self.seats) + 1}"
        claim = Claim(HostName(name if is_elsewhere else "c"), name)
        self.seats.append(Seat(name, self.rules.coordinator(claim, LEASE, self.floor)))

    def _seat_steps(self, seat: Seat) -> Iterator[Named]:
        if seat.coordinator.view.offset < len(self.topic):
            yield f"{seat.name} hears", partial(self.hear_as_coordinator, seat)
        yield f"{seat.name} acts", partial(self.act, seat)
        yield f"{seat.name} dies", partial(setattr, seat, "is_up", False)
        yield f"{seat.name} leaves", partial(self.leave, seat)

    def hear_as_coordinator(self, seat: Seat) -> None:
        offset = seat.coordinator.view.offset
        seat.coordinator.take(*self.topic[offset], offset, self.now)

    def act(self, seat: Seat) -> None:
        step = seat.coordinator.next_step(self.now)
        while step.act is Act.SIGN:
            self._send(seat, step)
            step = seat.coordinator.next_step(self.now)
        if step.act is Act.FETCH_END:
            seat.coordinator.note_end(Offset(len(self.topic)))
            seat.fetched_at = self.now
        elif step.act is Act.CLAIM:
            self._check_claim(seat)
        elif step.act is Act.STEP_DOWN:
            seat.is_up = False
        self._send(seat, step)

    def leave(self, seat: Seat) -> None:
        """A clean stop."""
        sign = seat.coordinator.farewell()
        seat.is_up = False
        if sign is not None:
            self._send(seat, Step(Act.SIGN, (sign,)))

    def _send(self, seat: Seat, step: Step) -> None:
        for record in step.records:
            self.flying.append(Sent(f"{seat.name}.{short_name(record)}", record.key, dict(record.value)))
        for key in step.keys:
            self.flying.append(Sent(f"{seat.name}.tombstone", key, None))

    # -- promises

    def _check_claim(self, seat: Seat) -> None:
        """Nobody is deposed from elsewhere who gave a sign in the lease before the claimer last looked."""
        looked_at = self.now if seat.fetched_at is None else seat.fetched_at
        signs = [at for at in self._signed_at if at <= looked_at]
        is_peer = self._holder is not None and self._holder.host != seat.coordinator.claim.host
        if is_peer and signs and not self._is_holder_leaving:
            expect("Calm", looked_at - signs[-1] >= LEASE, (seat.name, looked_at, signs[-1]))

    def check(self) -> None:
        self._check_mirrors(self.all_seen)
        self._check_watermarks()
        if len(self.topic) > self._compacted_at:
            self._compacted_at = len(self.topic)
            self._check_compaction()

    def _check_mirrors(self, view: FleetView) -> None:
        for repository in REPOSITORIES.values():
            told = view.visible_seq(repository)
            serving = [mirror for mirror in self.mirrors.values() if mirror.answers(repository)]
            for mirror in serving:
                expect("R3", mirror.exposed[repository] >= told, (mirror.host, repository[0], told))
            least_applied = min((mirror.applied[repository] for mirror in serving), default=0)
            most_exposed = max((mirror.exposed[repository] for mirror in serving), default=0)
            expect("R4", most_exposed <= least_applied, repository)

    def _check_watermarks(self) -> None:
        view = self.all_seen
        for repository in REPOSITORIES.values():
            for member in view.counted:
                report = view.report(member, repository)
                if view.is_answered(member, repository):
                    applied = report.applied if report else 0
                    expect("WmOk", applied >= view.watermark(repository), (member, repository))

    def _check_compaction(self) -> None:
        last = {key: number for number, (key, _) in enumerate(self.topic)}
        compacted = self.rules.view()
        for number, (key, value) in enumerate(self.topic):
            if last[key] == number:
                compacted.take(key, value, Offset(number))
        expect("Compaction", compacted.counted == self.all_seen.counted, compacted.counted)
        for repository in REPOSITORIES.values():
            is_equal = compacted.watermark(repository) == self.all_seen.watermark(repository)
            expect("Compaction", is_equal, repository)
        self._check_mirrors(compacted)


def short_name(record: StateRecord) -> str:
    """Name a coordinator's record for schedules."""
    match record:
        case Watermark():
            return f"watermark.{record.repository[0].upper()}{record.seq}"
        case Evict():
            return f"evict.{record.member.host}"
        case Admit():
            return f"admit.{record.member.host}"
        case Recount():
            return f"recount.{record.member.host}"
        case LifeSign():
            return "sign"
        case _:
            return "claim"
