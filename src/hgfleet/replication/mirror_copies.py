"""What a mirror knows of each of its copies, and which one needs work next.

Promises: pure; one repository is handed out to one task at a time; whoever is due waits in turn, so a
repository with thousands of messages does not hold up one with a single one.
Does not: do the work (mirror_lanes), expose or report.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from hgfleet.model.ids import Partition, RepoId, Seq

NO_SEQ = Seq(0)
FIRST_STEP = 16
MAX_STEP = 256
OVERRUN_ATTEMPTS = (
    3  # a host that was cut off joins when its copies are rebuilt; one that can't be is left out
)
STEP_SECONDS = 0.25  # a member's batch should not take longer: exposure has steps to stop at


class Cure(Enum):
    """What makes a parked copy whole again."""

    RETRY = "retry"  # apply the same message again later: another release, a blob that comes back
    REBUILD = "rebuild"  # a fresh copy beside it, from a snapshot or the log's start, then a switch
    PERSON = "person"  # the copy may hold what the log lost: nothing of it is overwritten


# A message or its payload is at fault, not the copy. Anything not named here is taken for a damaged copy.
_MESSAGE_FAULTS = (
    *("message.", "payload.damaged", "payload.too-new", "blob.", "settings.", "frame.", "log."),
    *("worker.failed", "io:", "log.", "local."),
)
OVERRUN = "log.overrun"  # the log has no longer what the copy needs next
_AHEAD_OF_LOG = ("message.gap", "apply.fork", "apply.gap", "log.behind")


def cure_for(reason: str) -> Cure:
    """Choose the cure by the error's code, with which a park's reason begins."""
    if reason.startswith(_AHEAD_OF_LOG):
        return Cure.PERSON
    if reason.startswith(OVERRUN):
        return Cure.REBUILD
    return Cure.RETRY if reason.startswith(_MESSAGE_FAULTS) else Cure.REBUILD


@dataclass(slots=True)
class Copy:
    """One repository on this host."""

    repository: RepoId
    partition: Partition
    applied: Seq = NO_SEQ
    exposed: Seq = NO_SEQ
    last: Seq = NO_SEQ  # the end of its sequence, as the log agent says
    target: Seq = NO_SEQ  # the end of its sequence when this host last connected
    is_checked: bool = True  # False: a crash may have left it in the middle of something
    is_busy: bool = False
    is_held: bool = False  # its next message is `deleted`, and readers may still need it
    may_delete: bool = False
    is_deleted: bool = False  # gone, here too
    parked: str = ""  # "<code>: <text>"; reads of it are refused
    is_returning: bool = False  # parked towards readers, whole again, waits until it may answer
    rebuilt: Seq | None = None  # applied seq of the copy that is being built beside it
    failures: int = 0  # in a row
    not_before: float = 0.0
    step: int = FIRST_STEP  # messages per batch

    @property
    def cure(self) -> Cure | None:
        """What is being done about it while it is parked."""
        return cure_for(self.parked) if self.parked and not self.is_returning else None

    @property
    def is_ahead(self) -> bool:
        """Whether it has more than its log: nothing that the log gives may take its place."""
        return self.applied > self.last

    @property
    def is_level(self) -> bool:
        """Whether it is as far as the log was when this host connected, or need not be."""
        is_there = self.applied >= self.target or (self.is_held and self.applied + 1 >= self.target)
        return self.is_checked and (is_there or self.is_deleted or self._is_waited_for_in_vain)

    @property
    def _is_waited_for_in_vain(self) -> bool:
        """Whether it is parked, and not about to be built anew because this host was away for long."""
        is_overrun = self.parked.startswith(OVERRUN) and not self.is_returning
        return bool(self.parked) and not (is_overrun and self.failures < OVERRUN_ATTEMPTS)

    @property
    def needs_work(self) -> bool:
        """Whether a task could bring it further now."""
        if self.is_busy or self.is_deleted or self.cure is Cure.PERSON:
            return False
        if not self.is_checked:
            return True
        if self.cure is Cure.REBUILD:
            return not self.is_ahead
        return self.applied < self.last and (self.may_delete or not self.is_held)

    def note_batch(self, count: int, seconds: float) -> None:
        """Adapt the batch size to how long one took."""
        if not self.parked:
            self.failures = 0
        if seconds > STEP_SECONDS:
            self.step = max(1, self.step // 2)
        elif count >= self.step and seconds < STEP_SECONDS / 3:
            self.step = min(MAX_STEP, self.step * 2)


class Copies:
    """All copies of a host, and the line of those that are due."""

    def __init__(self) -> None:
        self._copies: dict[RepoId, Copy] = {}
        self._due: deque[RepoId] = deque()
        self._queued: set[RepoId] = set()
        self._later: list[tuple[float, RepoId]] = []

    def __iter__(self) -> Iterator[Copy]:
        return iter(list(self._copies.values()))

    def __contains__(self, repository: RepoId) -> bool:
        return repository in self._copies

    def get(self, repository: RepoId) -> Copy | None:
        """Return a known copy."""
        return self._copies.get(repository)

    def add(self, copy: Copy) -> Copy:
        """Take up a copy that was not known."""
        self._copies[copy.repository] = copy
        return copy

    def advance(self, repository: RepoId, partition: Partition, last: Seq) -> Copy:
        """Note that the log has messages up to `last`; the copy may not exist yet."""
        copy = self._copies.get(repository) or self.add(Copy(repository, partition))
        copy.last = max(copy.last, last)
        self.wake(copy)
        return copy

    def restart(self, last_by_repository: Mapping[RepoId, Seq]) -> None:
        """Take the ends of all sequences anew: the log that is read now may be another one, or cut."""
        for copy in self._copies.values():
            copy.last = copy.target = last_by_repository.get(copy.repository, NO_SEQ)

    def wake(self, copy: Copy) -> None:
        """Put a copy in line if it needs work."""
        if copy.needs_work and copy.repository not in self._queued:
            self._queued.add(copy.repository)
            self._due.append(copy.repository)

    def delay(self, copy: Copy, until: float) -> None:
        """Let a copy rest until then."""
        copy.not_before = until
        heapq.heappush(self._later, (until, copy.repository))

    def next_due(self, now: float) -> Copy | None:
        """Take the next copy out of the line; the caller makes it busy."""
        while self._later and self._later[0][0] <= now:
            self.wake(self._copies[heapq.heappop(self._later)[1]])
        while self._due:
            repository = self._due.popleft()
            self._queued.discard(repository)
            copy = self._copies[repository]
            if copy.needs_work and copy.not_before <= now:
                return copy
        return None

    def next_time(self) -> float | None:
        """Return when a resting copy becomes due."""
        return self._later[0][0] if self._later else None
