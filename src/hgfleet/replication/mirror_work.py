"""Who works on which copy: hands tasks to the lanes, takes what came of them, parks and cures.

Promises: one task per copy at a time; a copy that cannot be applied is refused to readers before anybody is
told; what failed for a while is tried again with growing pauses, and so is every cure.
Does not: expose (mirror_showing) or say anything to the fleet: it notes in `changed` what there is to say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.errors import TransientError
from hgfleet.model.ids import RepoId, Seq
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
from hgfleet.replication.mirror_tasks import TaskSink

BATCH_BYTES = 16 * 1024 * 1024
MANY_MESSAGES = 2000
REBUILD_NAME = "rebuild"
RETRY_SECONDS = (0.1, 30.0)  # after what may pass by itself: first and longest pause
CURE_SECONDS = (0.5, 1800.0)  # before a parked copy is tried again
MAX_ATTEMPTS = 6  # in a row, for what may pass by itself; then the copy is parked, for others wait for it
MAX_FETCHES = 20  # the same for a blob that cannot be fetched now: some six minutes
_AGENT_LOST = "local."  # says nothing about the copy
# Nor do these: what is shown stays true, and refusing it would make the store's outage one of all readers.
# But others wait for this copy, and it may be this host alone that cannot reach the store.
_STORE_LOST = ("blob.unavailable", "blob.forbidden", "blob.no-bucket")
_log = structlog.get_logger()

CopyTask = ApplyTask | InspectTask | AdoptTask
CopyOutcome = Applied | Inspected | Failed


class MirrorWork:
    """The copies and the lanes' tasks. `watermark` tells up to where a copy may be exposed."""

    def __init__(
        self,
        repositories: Path,
        copies: Copies,
        catalogue: MirrorCatalogue,
        tasks: TaskSink,
        watermark: Callable[[RepoId], Seq],
    ) -> None:
        self._repositories = repositories
        self._copies = copies
        self._catalogue = catalogue
        self._tasks = tasks
        self._watermark = watermark
        self._returning: set[RepoId] = set()
        self.changed: set[RepoId] = set()

    def hand_out(self, room: int, now: float) -> int:
        """Give up to `room` tasks to the lanes; return how many."""
        count = 0
        while count < room and (copy := self._copies.next_due(now)) is not None:
            copy.is_busy = True
            self._tasks.put(self._task_for(copy))
            count += 1
        return count

    def take(self, outcome: CopyOutcome, now: float) -> None:
        """Go on from what came of a task."""
        copy = self._copies.get(outcome.task.repository)
        if copy is None:
            return
        copy.is_busy = False
        match outcome:
            case Applied():
                self._take_applied(copy, outcome, now)
            case Inspected():
                self._take_inspected(copy, outcome, now)
            case Failed():
                self._take_failed(copy, outcome, now)
        self.changed.add(copy.repository)
        self._copies.wake(copy)

    def park(self, copy: Copy, reason: str, now: float) -> None:
        """Refuse reads of a copy from now on, and see to its cure."""
        try:
            self._catalogue.park(copy.repository, reason)
        except TransientError as error:
            self._try_later(copy, str(error), now)
            return
        if not copy.parked:
            _log.error("applier.parked", repository=copy.repository, seq=copy.applied, reason=reason)
        copy.parked, copy.is_returning, copy.rebuilt = reason, False, None
        self._returning.discard(copy.repository)
        copy.failures += 1
        bounds = RETRY_SECONDS if reason.startswith(_STORE_LOST) else CURE_SECONDS
        self._copies.delay(copy, now + _pause(bounds, copy.failures))

    def unpark(self, copy: Copy) -> None:
        """Answer reads of a copy again. Raises TransientError when that can't be written."""
        self._catalogue.unpark(copy.repository)
        _log.info("applier.unparked", repository=copy.repository, seq=copy.applied, reason=copy.parked)
        copy.parked, copy.is_returning, copy.failures = "", False, 0
        self._returning.discard(copy.repository)

    def returning(self) -> list[Copy]:
        """Return the parked copies that are whole again."""
        return [copy for copy in map(self._copies.get, self._returning) if copy and copy.is_returning]

    # ---- what to do next

    def _task_for(self, copy: Copy) -> Task:
        directory = self._repositories / copy.repository
        if not copy.is_checked:
            return InspectTask(copy.repository, directory)
        if copy.cure is not Cure.REBUILD:
            return self._apply_task(copy, directory, copy.applied, is_rebuild=False)
        built = directory / REBUILD_NAME
        if _is_rebuilt(copy):
            return AdoptTask(copy.repository, directory, built)
        return self._apply_task(copy, built, copy.rebuilt or Seq(0), is_rebuild=True)

    def _apply_task(self, copy: Copy, directory: Path, after: Seq, *, is_rebuild: bool) -> ApplyTask:
        watermark = self._watermark(copy.repository)
        is_far_behind = after + MANY_MESSAGES < watermark or is_rebuild
        return ApplyTask(
            repository=copy.repository,
            directory=directory,
            partition=copy.partition,
            after_seq=after,
            max_messages=MANY_MESSAGES if is_far_behind else copy.step,
            max_bytes=BATCH_BYTES,
            watermark=watermark,
            may_delete=copy.may_delete,
            is_rebuild=is_rebuild,
        )

    # ---- what came of it

    def _take_applied(self, copy: Copy, outcome: Applied, now: float) -> None:
        copy.last = max(copy.last, outcome.last_seq)
        copy.is_held = outcome.is_held
        copy.note_batch(outcome.count, outcome.seconds)
        if outcome.task.is_rebuild:
            self._take_rebuilt(copy, outcome, now)
            return
        copy.applied = max(copy.applied, outcome.seq)
        copy.is_deleted = outcome.is_deleted
        if outcome.count:
            seconds = round(outcome.seconds, 4)
            names = {"repository": copy.repository, "seq": copy.applied}
            _log.debug("applier.applied", **names, messages=outcome.count, seconds=seconds)
        if copy.cure is Cure.RETRY and (copy.applied >= copy.last or copy.is_held):
            self._begin_return(copy)

    def _take_rebuilt(self, copy: Copy, outcome: Applied, now: float) -> None:
        if copy.cure is not Cure.REBUILD:
            return
        is_stuck = outcome.count == 0 and not outcome.is_held and outcome.seq < copy.last
        copy.rebuilt = outcome.seq
        if is_stuck:
            self._try_later(copy, "the log gave nothing", now)

    def _take_inspected(self, copy: Copy, outcome: Inspected, now: float) -> None:
        if not outcome.is_adopted:
            copy.applied, copy.is_checked, copy.failures = outcome.seq, True, 0
            return
        if outcome.seq < (copy.rebuilt or 0):  # a crash lost what was built
            copy.rebuilt = None
            self._try_later(copy, "the rebuilt copy is gone", now)
            return
        _log.info("applier.reconciled", repository=copy.repository, seq=outcome.seq)
        copy.applied, copy.exposed, copy.rebuilt = outcome.seq, Seq(0), None
        self._begin_return(copy)

    def _begin_return(self, copy: Copy) -> None:
        copy.is_returning = True
        self._returning.add(copy.repository)

    def _take_failed(self, copy: Copy, outcome: Failed, now: float) -> None:
        if outcome.applied is not None and not _is_rebuild(outcome.task):
            copy.applied = max(copy.applied, outcome.applied)
        attempts = MAX_FETCHES if outcome.reason.startswith(_STORE_LOST) else MAX_ATTEMPTS
        is_stuck = copy.failures + 1 >= attempts and not outcome.reason.startswith(_AGENT_LOST)
        if outcome.is_poison or is_stuck:
            copy.is_checked = True  # what it lacks is known now
            self.park(copy, outcome.reason, now)
        else:
            self._try_later(copy, outcome.reason, now)

    def _try_later(self, copy: Copy, reason: str, now: float) -> None:
        copy.failures += 1
        pause = _pause(RETRY_SECONDS, copy.failures)
        _log.warning(
            "applier.delayed", repository=copy.repository, reason=reason, pause_seconds=round(pause, 2)
        )
        self._copies.delay(copy, now + pause)


def _is_rebuilt(copy: Copy) -> bool:
    rebuilt = copy.rebuilt or 0
    return rebuilt > 0 and (rebuilt >= copy.last or (copy.is_held and rebuilt + 1 >= copy.last))


def _is_rebuild(task: Task) -> bool:
    return isinstance(task, ApplyTask) and task.is_rebuild


def _pause(bounds: tuple[float, float], failures: int) -> float:
    first, longest = bounds
    return min(longest, first * 2.0 ** min(failures - 1, 30))
