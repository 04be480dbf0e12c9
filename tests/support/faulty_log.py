"""A replication log that misbehaves as told: the port's rarer outcomes, on demand.

Promises: everything that is not planned goes straight to the log behind it; what it says of an append is true
of the log behind it (an append in doubt may be there, come later, come twice or never come).
Does not: lose or change records.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hgfleet.errors import InDoubtError, PoisonError, TransientError
from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Kind, Topic, decode_message
from hgfleet.ports.replication_log import NewRecord, Record, ReplicationLog


class Mishap(StrEnum):
    """What happens to an append."""

    REFUSED = "refused"  # TransientError; it is not there and never will be
    LOST = "lost"  # InDoubtError; it never comes
    LATE = "late"  # InDoubtError; it comes with land()
    UNANSWERED = "unanswered"  # InDoubtError; it is there
    TWICE = "twice"  # no error; it is there two times


@dataclass(frozen=True)
class Plan:
    """One mishap, for the next append that carries such a message, or records of the feed."""

    kind: Kind | Topic
    mishap: Mishap


class FaultyLog:
    """A ReplicationLog around another."""

    def __init__(self, log: ReplicationLog) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._plans: list[Plan] = []
        self._late: list[list[NewRecord]] = []
        self.is_unreachable = False  # every append is refused, reading works
        self.obstacle = ""  # what is said to stand in the way of appends; they are taken all the same
        self.batch_sizes: list[int] = []

    def plan(self, kind: Kind | Topic, *mishaps: Mishap) -> None:
        """Let the next appends of such messages go wrong, one after another."""
        with self._lock:
            self._plans += [Plan(kind, mishap) for mishap in mishaps]

    @property
    def planned(self) -> int:
        """How many mishaps are still to come."""
        return len(self._plans)

    def land(self) -> int:
        """Append what is late; return how many appends that were."""
        with self._lock:
            late, self._late = self._late, []
        for records in late:
            self._log.append(records)
        return len(late)

    def append(self, records: Sequence[NewRecord]) -> list[Offset]:
        if self.is_unreachable:
            raise TransientError("log.unreachable", "the log cannot be reached")
        self.batch_sizes.append(len(records))
        match self._take_plan(records):
            case Mishap.REFUSED:
                raise TransientError("log.unreachable", "the log cannot be reached")
            case Mishap.LATE:
                with self._lock:
                    self._late.append(list(records))
            case Mishap.UNANSWERED:
                self._log.append(records)
            case Mishap.TWICE:
                self._log.append(records)
                return self._log.append(records)
            case None:
                return self._log.append(records)
        raise InDoubtError("log.in-doubt", "the log did not answer")

    def _take_plan(self, records: Sequence[NewRecord]) -> Mishap | None:
        kinds = {_kind(record) for record in records}
        with self._lock:
            plan = next((plan for plan in self._plans if plan.kind in kinds), None)
            if plan is None:
                return None
            self._plans.remove(plan)
            return plan.mishap

    def partitions(self, topic: Topic) -> int:
        return self._log.partitions(topic)

    def read(self, topic: Topic, partition: Partition, offset: Offset, max_bytes: int) -> list[Record]:
        return self._log.read(topic, partition, offset, max_bytes)

    def first_offset(self, topic: Topic, partition: Partition) -> Offset:
        return self._log.first_offset(topic, partition)

    def end_offset(self, topic: Topic, partition: Partition) -> Offset:
        return self._log.end_offset(topic, partition)

    def drop_before(self, topic: Topic, partition: Partition, offset: Offset) -> None:
        self._log.drop_before(topic, partition, offset)

    def wait(self, seen: Mapping[tuple[Topic, Partition], Offset], timeout_seconds: float) -> bool:
        return self._log.wait(dict(seen), timeout_seconds)

    def find_obstacle(self, topic: Topic, partition: Partition) -> str:
        return self.obstacle or self._log.find_obstacle(topic, partition)

    def close(self) -> None:
        self._log.close()


def _kind(record: NewRecord) -> Kind | Topic | None:
    if record.topic is Topic.FEED:
        return Topic.FEED
    try:
        return decode_message(record.value).envelope.kind
    except PoisonError:
        return None
