"""Tasks on their way to the lanes: a copy goes to the lane that had it last, if that one is free.

The worker of that lane has the copy as it left it, changelog, manifests and caches; any other one must read
what was written since, which is a quarter of the work of applying a small push.

Promises: a task never waits while a lane is idle; among those that a lane may take, the oldest goes first.
Does not: bound the number of tasks, or know what they do.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import Protocol

from hgfleet.model.ids import RepoId
from hgfleet.replication.mirror_lanes import Task


class TaskSink(Protocol):
    """Takes tasks."""

    def put(self, task: Task) -> None:
        """Add a task; does not block."""


class LaneTasks:
    """The line in front of the lanes; tasks stand in it only while no lane is idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._idle: dict[str, SimpleQueue[Task]] = {}  # where each idle lane waits
        self._lane_by_copy: dict[RepoId, str] = {}

    def put(self, task: Task) -> None:
        """Add a task: an idle lane gets it at once, and no other one is woken."""
        with self._lock:
            last = self._lane_by_copy.get(task.repository)
            lane = last if last in self._idle else next(iter(self._idle), None)
            if lane is None:
                self._tasks.append(task)
                return
            self._lane_by_copy[task.repository] = lane
            self._idle.pop(lane).put(task)

    def get(self, lane: str) -> Task:
        """Wait for a task for this lane, which is idle until then."""
        with self._lock:
            if self._tasks:
                task = self._tasks.popleft()
                self._lane_by_copy[task.repository] = lane
                return task
            mine = self._idle[lane] = SimpleQueue()
        return mine.get()
