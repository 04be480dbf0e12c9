"""The replication log as its one client per host, the log agent, needs it.

Promises every adapter keeps (tests/contract/test_replication_log.py): a partition is a sequence of records
with rising offsets; a record that append() returned for is never lost and never changes; append() that
raised TransientError was not appended and never will be; after InDoubtError it may appear at any later time.
Offsets may have gaps. An offset handed in or out is always that of the *next* record to read.
Does not: check conditions. Whether a record counts is decided by every reader (model.acceptance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Topic


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read: its own offset, the next record's offset, its key and its bytes."""

    offset: Offset
    next_offset: Offset
    key: bytes
    value: bytes
    at: float  # Unix seconds at which the log took it


@dataclass(frozen=True, slots=True)
class NewRecord:
    """One record to append. Keys matter only on the compacted topic (hgfleet-state)."""

    topic: Topic
    partition: Partition
    value: bytes
    key: bytes = b""


class ReplicationLog(Protocol):
    """Topics of partitions of records. Calls may block; one instance may be used from several threads."""

    def partitions(self, topic: Topic) -> int:
        """Return how many partitions the topic has."""
        ...

    def append(self, records: Sequence[NewRecord]) -> list[Offset]:
        """Append the records in order and return each one's next offset once all are durable.

        Raises TransientError (none was or will be appended) or InDoubtError (any of them may be).
        """
        ...

    def read(self, topic: Topic, partition: Partition, offset: Offset, max_bytes: int) -> list[Record]:
        """Return the records from `offset` on, at least one if there is any, about `max_bytes` of them.

        Raises TransientError; RejectedError `log.overrun` when `offset` lies before the first record kept.
        """
        ...

    def first_offset(self, topic: Topic, partition: Partition) -> Offset:
        """Return the offset of the oldest record kept. Raises TransientError."""
        ...

    def end_offset(self, topic: Topic, partition: Partition) -> Offset:
        """Return the offset that the next record will have. Raises TransientError."""
        ...

    def drop_before(self, topic: Topic, partition: Partition, offset: Offset) -> None:
        """Forget the records below `offset`, which is no later than the end; offsets are never used again.

        The newest record may be kept. Raises TransientError: some may be gone, and it may be repeated. Every
        reader that comes later for what is gone hears `log.overrun`.
        """
        ...

    def wait(self, seen: dict[tuple[Topic, Partition], Offset], timeout_seconds: float) -> bool:
        """Block until one of the partitions has a record at or after its `seen` offset; False on time-out."""
        ...

    def find_obstacle(self, topic: Topic, partition: Partition) -> str:
        """Return why the partition takes no records now, "" when nothing is known against it.

        May block for some seconds; the answer is not older than about one. A push asks before it sends data.
        """
        ...

    def close(self) -> None:
        """Release everything; the instance is not used afterwards."""
        ...
