"""The append, failover and catalogue rules keep their promises, and each plausible wrong rule is found out.

The stateful test walks at random through all that agents, sessions, copies and the log can do next. The wrong
rules are played through one schedule each: the wrong one takes every step and breaks the promise named
there, the right one blocks a step on the way and keeps them all.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hgfleet.model.acceptance import PartitionReader, RepoHead, Verdict
from hgfleet.model.catalogue import Binding, Catalogue
from hgfleet.model.ids import START, Epoch, Offset, Position, RepoId
from hgfleet.model.message import Envelope, Message
from tests.support.protocol_log import CAT, LogWorld, Rules
from tests.support.protocol_play import broken_promise, play


def win(life: str) -> list[str]:
    return [f"{life} reads cat*", f"{life} bids", f"land {life}.bid", f"{life} reads cat*", f"{life} wins"]


def open_up(life: str, *partitions: str) -> list[str]:
    steps = []
    for p in partitions or ("p0", "p1"):
        steps += [
            f"{life} opens {p}",
            f"land {life}.epoch.{p}",
            f"{life} reads {p}*",
            f"{life} completes {p}",
        ]
    return steps


def serve(life: str, host: str, *partitions: str) -> list[str]:
    return [f"start on {host}", *win(life), *open_up(life, *partitions)]


UP = serve("L1", "x")
ACCEPTED_PUSH = ["L1 pushes to A", "land push1", "L1 reads p0", "push1 is told"]
CREATED = ["L1 creates", "land create1.created", "L1 reads p0", "create1 goes on", "land create1.bind"]


SORTS = {
    "land ": 6,
    " reads ": 3,
    " bids": 2,
    " wins": 4,
    " opens ": 3,
    " completes ": 4,
    " pushes ": 3,
    " is told": 3,
    " asks ": 2,
    " creates": 1.0,
    " deletes": 2,
    " renames": 1,
    " goes on": 6,
    " catches up ": 3,
    " reopens ": 1,
    "start ": 2,
    " dies": 0.15,
    " voids ": 1,
    " times out": 0.2,
}


class AnyStep(RuleBasedStateMachine):
    """Walks: draws a sort of step, then one of that sort among those that can happen next, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.world = LogWorld(max_lives=5, max_pushes=8)

    @initialize(seed=st.integers(0, 2**64))
    def begin(self, seed: int) -> None:
        if seed % 4:
            assert play(self.world, UP) == []
        self.walk(seed)

    @rule(seed=st.integers(0, 2**64))
    def walk(self, seed: int) -> None:
        random = Random(seed)
        for _ in range(80):
            steps = self.world.steps()
            sorts = [sort for sort in SORTS if any(sort in name for name in steps)]
            if not sorts:
                return
            (sort,) = random.choices(sorts, [SORTS[sort] for sort in sorts])
            self._take(random.choice([name for name in steps if sort in name]))

    @rule()
    def read_all(self) -> None:
        while names := [name for name in self.world.steps() if " reads " in name]:
            self._take(names[0])

    @rule()
    def land_all(self) -> None:
        while names := [
            name for name in self.world.steps() if name.startswith("land ") and "keep" not in name
        ]:
            self._take(names[0])

    def _take(self, name: str) -> None:
        note(name)
        self.world.steps()[name]()
        self.world.check()


TestAnyStep = AnyStep.TestCase
TestAnyStep.settings = settings(
    max_examples=60,
    stateful_step_count=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # the steps are printed; making them fewer takes minutes
    suppress_health_check=list(HealthCheck),
)


def test_the_good_case_ends_well() -> None:
    world = LogWorld()
    steps = [
        *UP,
        *ACCEPTED_PUSH,
        *CREATED,
        "L1 reads cat",
        "create1 goes on",
        "L1 renames",
        "land rename1.rename",
        "L1 reads cat",
        "rename1 goes on",
        "y catches up A*",
        "x catches up A*",
    ]
    assert play(world, steps) == []
    assert [push.told for push in world.pushes] == ["ok"]
    assert [operation.told for operation in world.operations] == ["ok", "ok"]
    assert {copy.head.seq for (_, repository), copy in world.copies.items() if repository[0] == "a"} == {1}


def test_an_unanswered_push_is_settled_by_its_void() -> None:
    world = LogWorld()
    steps = [*UP, "L1 pushes to A", "L1 voids A", "land void1", "L1 reads p0", "push1 is told", "land push1"]
    assert play(world, steps) == []
    assert world.pushes[0].told == "nothing was changed"


def test_the_next_life_tells_what_became_of_a_push() -> None:
    world = LogWorld()
    steps = [
        *UP,
        "L1 pushes to A",
        "L1 dies",
        *serve("L2", "x"),
        "land push1",
        "L2 reads p0",
        "push1 asks L2",
    ]
    assert play(world, steps) == []
    assert world.pushes[0].told == "nothing was changed"


def test_a_path_comes_and_goes_and_completion_ends_what_was_left() -> None:
    world = LogWorld()
    delete = ["L1 deletes", "land delete1.unbind", "L1 reads cat", "delete1 goes on", "L1 dies"]
    complete = ["land L2.completion", "L2 reads p0", "L2 completes p0"]
    steps = [
        *UP,
        *CREATED,
        "L1 reads cat",
        "create1 goes on",
        *delete,
        *serve("L2", "x"),
        *complete,
        "L2 creates",
    ]
    assert play(world, steps) == []


# -- the wrong rules


class LastEpochReader(PartitionReader):
    """Takes any epoch message for the newest."""

    def _raised(self, number: Epoch) -> Epoch:
        return number


class InferringReader(PartitionReader):
    """Starts without an epoch and takes it from the first message that fits."""

    def _judge(self, envelope: Envelope) -> Verdict:
        head = self.head(envelope.repository)
        if not self.epoch and (envelope.seq, envelope.parent) == (head.seq + 1, head.digest):
            self._position = Position(self.position.offset, envelope.epoch)
        return super()._judge(envelope)


class SkippingReader(PartitionReader):
    """Ignores what does not fit instead of parking."""

    def _park(self, repository: RepoId, reason: str) -> Verdict:
        return Verdict.IGNORED


class ForgetfulCatalogue(Catalogue):
    """Binds an id that was bound before."""

    def _apply_bind(self, binding: Binding) -> bool:
        self._partition_by_repository.pop(binding.repository, None)
        return super()._apply_bind(binding)


def serve_eagerly(reader: PartitionReader, own_epoch: Epoch) -> bool:
    return own_epoch > 0 and reader.epoch <= own_epoch


def resume_inferring(position: Position, head: tuple[RepoId, RepoHead], _: Epoch) -> PartitionReader:
    return InferringReader(Position(position.offset, Epoch(0)), dict([head]))


def resume_skipping(position: Position, head: tuple[RepoId, RepoHead], _: Epoch) -> PartitionReader:
    return SkippingReader(position, dict([head]))


def resume_by_catalogue(position: Position, head: tuple[RepoId, RepoHead], newest: Epoch) -> PartitionReader:
    return PartitionReader(Position(position.offset, newest), dict([head]))


def resume_from_the_copy(position: Position, head: tuple[RepoId, RepoHead], _: Epoch) -> PartitionReader:
    epoch = head[1].position.epoch or position.epoch
    return PartitionReader(Position(position.offset, epoch), dict([head]))


RIGHT = Rules()
GO_OVER = ["L1 pushes to A", "L1 dies", "start on x", *win("L2")]
DELETED = ["L1 deletes", "land delete1.unbind", "L1 reads cat", "delete1 goes on"]

WRONG: dict[str, tuple[Rules, list[str], str]] = {
    "an agent goes on in its epoch after a restart": (
        replace(RIGHT, is_epoch_kept_at_restart=True),
        [
            *UP,
            "L1 pushes to A",
            "L1 dies",
            "start on x",
            "L2 reads p0*",
            "L2 completes p0",
            "push1 asks L2",
            "land push1",
        ],
        "D3",
    ),
    "a partition is served as soon as the catalogue is won": (
        replace(RIGHT, is_serving=serve_eagerly),
        [*UP, *GO_OVER, "L2 opens p0", "L2 reads p0*", "L2 completes p0", "push1 asks L2", "land push1"],
        "D3",
    ),
    "the last epoch message read is the epoch in force": (
        replace(RIGHT, reader=LastEpochReader),
        [
            "start on x",
            *win("L1"),
            "L1 opens p0",
            *serve("L2", "y", "p0"),
            "L2 pushes to A",
            "land push1",
            "land L1.epoch.p0",
            "L1 reads p0*",
            "L1 completes p0",
            "x catches up A*",
            "L1 pushes to A",
            "land push2",
        ],
        "F1",
    ),
    "a reader infers the epoch from the first message it sees": (
        replace(RIGHT, resume=resume_inferring),
        [*UP, *ACCEPTED_PUSH, "L1 pushes to A", *serve("L2", "y"), "land push2"],
        "Mid",
    ),
    "a reader takes the epoch from the catalogue": (
        replace(RIGHT, resume=resume_by_catalogue),
        [*UP, "start on y", *win("L2"), "L1 pushes to A", "land push1"],
        "Mid",
    ),
    "a position's epoch is the one of the copy's last message": (
        replace(RIGHT, resume=resume_from_the_copy),
        [*UP, *ACCEPTED_PUSH, "L1 pushes to A", *serve("L2", "y"), "land push2"],
        "Mid",
    ),
    "the next append does not wait for settlement": (
        replace(RIGHT, is_flight_single=False),
        [*UP, "L1 pushes to A", "L1 pushes to A", "land push2"],
        "NoOdd",
    ),
    "an answer is given when the message came by and did not count": (
        replace(
            RIGHT,
            is_flight_single=False,
            is_answered_when_seen=True,
            reader=SkippingReader,
            resume=resume_skipping,
        ),
        [
            *UP,
            "L1 pushes to A",
            "L1 pushes to A",
            "land push2 and keep it",
            "L1 reads p0",
            "push2 is told",
            "land push1",
            "land push2",
        ],
        "D3",
    ),
    "completion binds what is created and not bound": (
        replace(RIGHT, is_half_bound=True, catalogue=ForgetfulCatalogue),
        [
            *UP,
            *CREATED,
            "L1 reads cat",
            "create1 goes on",
            *DELETED,
            "L1 dies",
            *serve("L2", "x", "p0"),
            "land L2.completion.bind",
        ],
        "DeletedStays",
    ),
    "a partition is completed before the own epoch was read there": (
        replace(RIGHT, is_completed_before_read_back=True),
        [
            *UP,
            "L1 creates",
            "L1 dies",
            "start on x",
            *win("L2"),
            "L2 opens p0",
            "L2 completes p0",
            "land create1.created",
            "land L2.epoch.p0",
            "L2 reads p0*",
        ],
        "NoHalf",
    ),
    "a bind is settled by looking at the path": (
        replace(RIGHT, is_bind_settled_by_path=True, catalogue=ForgetfulCatalogue),
        [*UP, *CREATED, "L1 reads cat", *DELETED, "create1 goes on", "land create1.bind"],
        "DeletedStays",
    ),
    "a bind is settled by looking at the path, and the path is taken again": (
        replace(RIGHT, is_bind_settled_by_path=True),
        [
            *UP,
            *CREATED,
            "L1 reads cat",
            *DELETED,
            "land delete1.deleted",
            "L1 reads p0",
            "L1 creates",
            "land create2.created",
            "L1 reads p0",
            "create2 goes on",
            "land create2.bind",
            "L1 reads cat",
            "create1 goes on",
            "land create1.deleted",
            "L1 reads p0",
            "create1 goes on",
        ],
        "Nothing",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_breaks_a_promise(name: str) -> None:
    rules, schedule, promise = WRONG[name]
    assert broken_promise(LogWorld(rules), schedule) == promise


@pytest.mark.parametrize("name", WRONG)
def test_the_right_rules_keep_all_promises_in_the_same_schedule(name: str) -> None:
    play(LogWorld(), WRONG[name][1])


def test_a_schedule_needs_all_its_steps() -> None:
    world = LogWorld()
    assert play(world, UP) == []
    assert [len(world.log[where]) for where in (CAT, "p0", "p1")] == [1, 1, 1]
    assert isinstance(world.messages["p0"][0], Message)
    assert world.fold("p0")[0].position == Position(Offset(1), Epoch(START.epoch + 1))
