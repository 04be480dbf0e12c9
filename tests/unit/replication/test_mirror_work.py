"""Tasks, parking and cures, outcome by outcome."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import pytest

from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.errors import TransientError
from hgfleet.model.ids import Partition, RepoId, Seq
from hgfleet.replication.mirror_copies import Copies, Copy, Cure
from hgfleet.replication.mirror_lanes import (
    AdoptTask,
    Applied,
    ApplyTask,
    Failed,
    Inspected,
    InspectTask,
    Task,
)
from hgfleet.replication.mirror_work import MAX_ATTEMPTS, REBUILD_NAME, MirrorWork

A = RepoId("a" * 32)
DAMAGED = "state.differs: applying it led to another state"


class Desk:
    """The work of one mirror, whose lanes are the test."""

    def __init__(self, directory: Path) -> None:
        self.tasks: SimpleQueue[Task] = SimpleQueue()
        self.catalogue = MirrorCatalogue(directory / "catalogue.sqlite")
        self.copies = Copies()
        self.watermark = Seq(0)
        self.work = MirrorWork(
            directory / "repos", self.copies, self.catalogue, self.tasks, lambda _repository: self.watermark
        )
        self.now = 0.0

    def next(self) -> Task | None:
        """Hand out and return the next task, as soon as one is due."""
        self.work.hand_out(1, self.now)
        return None if self.tasks.empty() else self.tasks.get_nowait()

    def next_apply(self) -> ApplyTask:
        task = self.next()
        assert isinstance(task, ApplyTask)
        return task

    def applied(self, task: ApplyTask, seq: int, *, is_held: bool = False) -> None:
        copy = self.copy
        count = seq - task.after_seq
        self.work.take(Applied(task, Seq(seq), copy.last, count, 0.01, is_held), self.now)

    def failed(self, task: Task, reason: str, *, is_poison: bool) -> None:
        self.work.take(Failed(task, reason, is_poison), self.now)

    @property
    def copy(self) -> Copy:
        copy = self.copies.get(A)
        assert copy is not None
        return copy


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.copies.advance(A, Partition(2), Seq(10))
    return desk


def test_a_copy_is_worked_on_by_one_task_at_a_time_until_it_is_level(desk: Desk) -> None:
    task = desk.next_apply()
    assert (task.after_seq, task.partition, task.is_rebuild) == (0, 2, False)
    assert desk.next() is None
    desk.applied(task, 6)
    task = desk.next_apply()
    assert task.after_seq == 6
    desk.applied(task, 10)
    assert desk.next() is None
    assert desk.work.changed == {A}


def test_a_damaged_copy_is_refused_rebuilt_beside_adopted_and_returned(desk: Desk) -> None:
    desk.failed(desk.next_apply(), DAMAGED, is_poison=True)
    assert desk.catalogue.parked() == {A: DAMAGED}
    assert desk.next() is None, "not at once"
    desk.now += 1
    task = desk.next_apply()
    assert task.is_rebuild
    assert task.directory.name == REBUILD_NAME
    assert task.after_seq == 0
    desk.applied(task, 7)
    desk.applied(desk.next_apply(), 10)
    adopt = desk.next()
    assert isinstance(adopt, AdoptTask)
    desk.work.take(Inspected(adopt, Seq(10), is_adopted=True), desk.now)
    assert (desk.copy.applied, desk.copy.exposed, desk.copy.is_returning) == (10, 0, True)
    assert desk.work.returning() == [desk.copy]
    assert desk.catalogue.parked() == {A: DAMAGED}, "readers wait until the fleet counts it again"
    desk.work.unpark(desk.copy)
    assert desk.catalogue.parked() == {}
    assert desk.work.returning() == []


def test_a_rebuilt_copy_that_a_crash_took_is_built_again(desk: Desk) -> None:
    desk.failed(desk.next_apply(), DAMAGED, is_poison=True)
    desk.now += 1
    desk.applied(desk.next_apply(), 10)
    adopt = desk.next()
    assert isinstance(adopt, AdoptTask)
    desk.work.take(Inspected(adopt, Seq(4), is_adopted=True), desk.now)
    desk.now += 60
    task = desk.next_apply()
    assert (task.is_rebuild, task.after_seq) == (True, 0)


def test_a_cure_that_fails_is_tried_again_with_growing_pauses(desk: Desk) -> None:
    pauses = []
    desk.failed(desk.next_apply(), DAMAGED, is_poison=True)
    for _ in range(5):
        started_at = desk.now
        while (task := desk.next()) is None:
            desk.now += 0.1
        pauses.append(desk.now - started_at)
        desk.failed(task, DAMAGED, is_poison=True)
    assert pauses == sorted(pauses)
    assert pauses[-1] > 3 * pauses[0]


def test_a_message_at_fault_is_tried_again_in_place_and_the_copy_returns(desk: Desk) -> None:
    desk.failed(desk.next_apply(), "blob.missing: no such blob", is_poison=True)
    desk.now += 1
    task = desk.next_apply()
    assert not task.is_rebuild
    desk.applied(task, 10)
    assert desk.copy.is_returning


def test_a_copy_that_is_no_prefix_of_its_log_is_left_to_a_person(desk: Desk) -> None:
    desk.failed(desk.next_apply(), "message.gap: does not follow", is_poison=True)
    assert desk.copy.cure is Cure.PERSON
    desk.now += 1_000_000
    desk.copies.advance(A, Partition(2), Seq(20))
    assert desk.next() is None


def test_what_may_pass_is_tried_again_and_parked_only_when_it_goes_on(desk: Desk) -> None:
    for attempt in range(MAX_ATTEMPTS):
        assert desk.catalogue.parked() == {}, attempt
        while (task := desk.next()) is None:
            desk.now += 0.1
        desk.failed(task, "worker.failed: no space left", is_poison=False)
    assert A in desk.catalogue.parked()


def test_a_store_that_cannot_be_reached_parks_only_after_minutes_and_not_for_long(desk: Desk) -> None:
    unreachable = "blob.unavailable: the blob store cannot be reached"
    while not desk.catalogue.parked():
        while (task := desk.next()) is None:
            desk.now += 0.1
        desk.failed(task, unreachable, is_poison=False)
    parked_at = desk.now
    assert 300 < parked_at < 600
    while (task := desk.next()) is None:
        desk.now += 1
    assert desk.now - parked_at <= 31
    assert isinstance(task, ApplyTask)
    desk.applied(task, 10)
    assert desk.work.returning() == [desk.copy]


def test_a_lost_agent_parks_nothing_however_long_it_is_away(desk: Desk) -> None:
    for _ in range(3 * MAX_ATTEMPTS):
        while (task := desk.next()) is None:
            desk.now += 1
        desk.failed(task, "local.unreachable: gone", is_poison=False)
    assert desk.catalogue.parked() == {}


def test_a_copy_that_cannot_be_refused_is_not_said_to_be(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise TransientError("mirror.catalogue", "full")

    task = desk.next_apply()
    with monkeypatch.context() as patch:
        patch.setattr(desk.catalogue, "park", refuse)
        desk.failed(task, DAMAGED, is_poison=True)
    assert desk.copy.parked == ""
    desk.now += 1
    assert desk.next() is not None, "it is tried again"


def test_an_unchecked_copy_is_inspected_before_anything_is_applied(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.copies.add(Copy(A, Partition(2), applied=Seq(5), is_checked=False))
    desk.copies.advance(A, Partition(2), Seq(10))
    task = desk.next()
    assert isinstance(task, InspectTask)
    desk.work.take(Inspected(task, Seq(4)), desk.now)
    assert desk.next_apply().after_seq == 4


def test_a_deletion_is_held_until_it_is_allowed(desk: Desk) -> None:
    desk.applied(desk.next_apply(), 9, is_held=True)
    assert desk.next() is None
    desk.copy.may_delete = True
    desk.copies.wake(desk.copy)
    assert desk.next_apply().may_delete


def test_a_copy_far_below_its_watermark_is_caught_up_in_large_batches(desk: Desk) -> None:
    small = desk.next_apply()
    desk.failed(small, "local.unreachable: gone", is_poison=False)
    desk.watermark, desk.now = Seq(50_000), 10.0
    desk.copies.advance(A, Partition(2), Seq(60_000))
    assert desk.next_apply().max_messages > 10 * small.max_messages
