"""Which lane gets which task."""

from __future__ import annotations

import threading
from pathlib import Path
from queue import SimpleQueue

from hgfleet.model.ids import RepoId
from hgfleet.replication.mirror_lanes import InspectTask, Task
from hgfleet.replication.mirror_tasks import LaneTasks
from tests.support.waiting import wait_until

A, B = (InspectTask(RepoId(letter * 32), Path(letter)) for letter in "ab")


class IdleLane:
    """A lane that waits for one task after another, each taken only when asked for."""

    def __init__(self, tasks: LaneTasks, name: str) -> None:
        self._tasks, self._name = tasks, name
        self.taken: SimpleQueue[Task] = SimpleQueue()

    def wait_for_one(self) -> None:
        """Be idle until there is a task for this lane."""
        threading.Thread(target=lambda: self.taken.put(self._tasks.get(self._name)), daemon=True).start()
        wait_until(lambda: self._name in self._tasks._idle or not self.taken.empty(), what="the lane is idle")


def test_a_copy_comes_back_to_the_lane_that_had_it_while_others_are_idle_too() -> None:
    tasks = LaneTasks()
    lanes = [IdleLane(tasks, name) for name in ("one", "two", "three")]
    tasks.put(A)
    assert tasks.get("two") == A
    for _ in range(20):
        for lane in lanes:
            if lane.taken.empty():
                lane.wait_for_one()
        tasks.put(A)
        assert lanes[1].taken.get(timeout=10) == A
    assert lanes[0].taken.empty()
    assert lanes[2].taken.empty()


def test_a_task_does_not_wait_for_a_busy_lane() -> None:
    tasks = LaneTasks()
    tasks.put(A)
    assert tasks.get("one") == A  # and is busy with something from now on
    tasks.put(A)
    assert tasks.get("two") == A


def test_what_was_left_to_a_lane_is_anybodys_once_that_lane_is_busy() -> None:
    tasks = LaneTasks()
    for task in (A, B):
        tasks.put(task)
        assert tasks.get("one") == task
    lanes = [IdleLane(tasks, name) for name in ("one", "two")]
    for lane in lanes:
        lane.wait_for_one()
    tasks.put(A)
    tasks.put(B)
    assert {lane.taken.get(timeout=10) for lane in lanes} == {A, B}


def test_the_oldest_task_that_a_lane_may_take_goes_first() -> None:
    tasks = LaneTasks()
    tasks.put(B)
    tasks.put(A)
    assert [tasks.get("one"), tasks.get("one")] == [B, A]
