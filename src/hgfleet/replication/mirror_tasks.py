"""Tasks on their way to the lanes: a copy goes to the lane that had it last, if that one is free.

The worker of that lane has the copy as it left it, changelog, manifests and caches; any other one must read
what was written since, which is a quarter of the work of applying a small push.

Promises: a task never waits while a lane is idle; among those that a lane may take, the oldest goes first.
Does not: bound the number of tasks, or know what they do.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol

from hgfleet.model.ids import RepoId
from hgfleet.replication.mirror_lanes import Task


class TaskSink(Protocol):
    """Takes tasks."""

    def put(self, task: Task) -> None:
        """Add a task; does not block."""


class LaneTasks:
    """The line in front of the lanes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._idle: set[str] = set()
        self._lane_by_copy: dict[RepoId, str] = {}

    def put(self, task: Task) -> None:
        """Add a task."""
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    def get(self, lane: str) -> Task:
        """Wait for a task for this lane, which is idle until then."""
        with self._changed:
            self._idle.add(lane)
            self._changed.notify_all()
            while (task := self._take(lane)) is None:
                self._changed.wait()
            self._idle.discard(lane)
            self._changed.notify_all()  # what was left to this lane is anybody's now
            return task

    def _take(self, lane: str) -> Task | None:
        for task in self._tasks:
            if self._lane_by_copy.get(task.repository) not in self._idle - {lane}:
                self._tasks.remove(task)
                self._lane_by_copy[task.repository] = lane
                return task
        return None
