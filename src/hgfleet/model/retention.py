"""When a repository needs a snapshot, who makes it, and what the log may forget.

Promises: pure. By these rules every repository has two snapshots that are younger than the retention before
the log reaches their first message, as long as some mirror makes them; and the log never forgets a message
that the older of the two needs, however late they are.
Does not: look at the log or the clock (replication.agent_retention does).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from hgfleet.model.acceptance import RepoHead
from hgfleet.model.ids import HostName, RepoId
from hgfleet.model.standing import Standing

CHECKS_PER_RETENTION = 8  # how often, at least, the policy must be looked at before the log forgets


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When the newest snapshot is too old."""

    retention_seconds: float
    max_messages: int  # since the newest snapshot
    max_bytes: int  # of log since the newest snapshot

    @property
    def interval_seconds(self) -> float:
        """The age at which a repository needs the next one: two fit into the retention."""
        return self.retention_seconds / 2

    @property
    def patience_seconds(self) -> float:
        """How long each further host waits for the one before it: four of them before the log may forget."""
        return self.retention_seconds / 8


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What the log and the blob store keep."""

    seconds: float  # a record is kept at least so long
    interval_seconds: float  # between two looks
    blob_grace_seconds: float  # a blob that nothing names is kept at least so long

    @property
    def step_seconds(self) -> float:
        """How much too old the oldest record is before the log is trimmed."""
        return self.seconds / 16


DAY_SECONDS = 86_400.0
DEFAULT_RETENTION = RetentionPolicy(7 * DAY_SECONDS, 600.0, DAY_SECONDS)
DEFAULT_SNAPSHOTS = SnapshotPolicy(DEFAULT_RETENTION.seconds, 10_000, 1024**3)


@dataclass(frozen=True, slots=True)
class Growth:
    """What one repository's log has since its newest snapshot, or since its start."""

    messages: int
    size_bytes: int
    since: float  # Unix seconds: the newest snapshot, or the first message


def due_since(
    policy: SnapshotPolicy, head: RepoHead, standing: Standing, growth: Growth, now: float
) -> float:
    """Return for how many seconds a snapshot has been due; negative: it is not."""
    older = standing.older
    if head.is_deleted or head.seq == 0 or (older is not None and older.seq >= head.seq):
        return -1.0  # both have all there is: nothing of the log is needed
    if growth.messages > policy.max_messages or growth.size_bytes > policy.max_bytes:
        return 0.0  # for the first host; should it fail, age brings in the others
    return now - growth.since - policy.interval_seconds


def rank_of(host: HostName, repository: RepoId, hosts: Iterable[HostName]) -> int | None:
    """Return how many of the hosts come before this one for the repository; None when it is none of them.

    By rendezvous hashing: each repository has its own order, and a host that leaves moves only its own.
    """
    order = sorted(set(hosts), key=lambda name: hashlib.sha256(f"{repository}/{name}".encode()).digest())
    return order.index(host) if host in order else None


def is_turn(policy: SnapshotPolicy, due_seconds: float, rank: int) -> bool:
    """Whether the host of this rank shall make it now: the first at once, others when that did not help."""
    return due_seconds >= rank * policy.patience_seconds
