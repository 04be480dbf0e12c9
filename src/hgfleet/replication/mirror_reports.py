"""What a mirror says of itself on the state topic: the newest word per key, one batch at a time.

Promises: of each key the newest value is published last; what could not be published is published later,
unless something newer took its place. While a batch is on its way the next one gathers.
Does not: decide what to say, or what follows from an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import InDoubtError, TransientError
from hgfleet.model.fleet_records import is_report
from hgfleet.model.ids import Offset
from hgfleet.runtime import clock

MAX_BATCH = 2000
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """The log has taken a batch that was sent at `sent_at` (boot time)."""

    values: Values
    sent_at: float
    offset: Offset  # behind the batch


@dataclass(frozen=True, slots=True)
class NotPublished:
    """The log has not taken a batch, or nobody knows: `is_in_doubt`."""

    values: Values
    is_in_doubt: bool
    reason: str


Answer = Published | NotPublished


def is_routine(answer: Answer) -> bool:
    """Whether the log has taken reports and nothing else: no heartbeat, on which a lease depends."""
    return isinstance(answer, Published) and all(map(is_report, answer.values))


class Reports:
    """The words that wait, and the batch on its way."""

    def __init__(self, client: LogAgentClient, hand_on: Callable[[Answer], None]) -> None:
        self._client = client
        self._hand_on = hand_on
        self._waiting: Values = {}
        self._batches: SimpleQueue[Values] = SimpleQueue()
        self._is_sending = False
        self._not_before = 0.0

    def start(self) -> None:
        """Start the thread that publishes."""
        threading.Thread(target=self._send_all, name="publish", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether everything said so far has been published."""
        return not self._waiting and not self._is_sending

    @property
    def has_waiting(self) -> bool:
        """Whether something was said that is not on its way; may be asked by any thread."""
        return bool(self._waiting)

    def say(self, key: str, value: Any) -> None:
        """Publish a value with the next batch; an older one that still waits is dropped."""
        self._waiting.pop(key, None)
        self._waiting[key] = value

    def is_pending(self, key: str) -> bool:
        """Whether something newer about the key is still to be published."""
        return key in self._waiting or self._is_sending

    def forget(self) -> None:
        """Drop what waits: it was said by an incarnation that has ended."""
        self._waiting.clear()

    def flush(self, now: float) -> None:
        """Send what waits unless a batch is on its way or a failure was just now."""
        if self._is_sending or not self._waiting or now < self._not_before:
            return
        keys = list(self._waiting)[:MAX_BATCH]
        self._is_sending = True
        self._batches.put({key: self._waiting.pop(key) for key in keys})

    def next_time(self) -> float | None:
        """Return when a failed batch is sent again."""
        return self._not_before if self._waiting and not self._is_sending else None

    def settle(self, answer: Answer, now: float, pause_seconds: float) -> None:
        """Take a batch's answer; what failed waits again, behind whatever is newer."""
        self._is_sending = False
        if isinstance(answer, NotPublished):
            self._waiting = {**answer.values, **self._waiting}
            self._not_before = now + pause_seconds

    def _send_all(self) -> None:
        while True:
            values = self._batches.get()
            self._hand_on(self._send(values))

    def _send(self, values: Values) -> Answer:
        sent_at = clock.boottime()
        try:
            return Published(values, sent_at, self._client.state_publish(values))
        except (TransientError, InDoubtError) as error:
            return NotPublished(values, isinstance(error, InDoubtError), str(error))
