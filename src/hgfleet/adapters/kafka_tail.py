"""Follows partitions as they grow: what is new lies here before anybody asks for it.

One handle is assigned to all followed partitions for good, so the broker answers its one long request the
moment any of them grows. What it brings waits, per partition and within bounds, for a read at exactly that
offset; any other offset is none of our business.

Promises: take() returns the records from an offset on without a gap, or None where it does not have them;
wait() returns as soon as one of the partitions has a record at or after its offset.
Does not: say where a partition ends, or why it cannot be read (kafka_reader).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hgfleet.adapters import kafka_errors
from hgfleet.adapters.kafka_reader import to_record
from hgfleet.adapters.kafka_settings import KafkaSettings, Place
from hgfleet.model.ids import Offset
from hgfleet.ports.replication_log import Record
from hgfleet.runtime import clock

POLL_SECONDS = 0.1  # how long a new position or a stop may go unnoticed
MOST_BYTES = 4 * 1024 * 1024  # of one partition; it is fetched on when half of that is taken
BATCH = 500
LATE_SECONDS = 5.0  # a record known to be there and not here by then is read elsewhere


@dataclass(slots=True)
class _Place:
    """One followed partition: the records from `start` up to `end`, which is where fetching goes on."""

    start: Offset
    end: Offset
    records: deque[Record] = field(default_factory=deque)
    size_bytes: int = 0
    is_paused: bool = False
    is_broken: bool = False  # it cannot be followed from here; whoever reads it hears why

    def add(self, record: Record) -> None:
        if record.offset >= self.end:
            self.records.append(record)
            self.size_bytes += len(record.value)
            self.end = record.next_offset

    def drop_before(self, offset: Offset) -> None:
        while self.records and self.records[0].offset < offset:
            self.size_bytes -= len(self.records.popleft().value)
        self.start = max(self.start, offset)

    def take(self, max_bytes: int) -> list[Record]:
        taken: list[Record] = []
        while self.records and (max_bytes > 0 or not taken):
            record = self.records.popleft()
            self.size_bytes -= len(record.value)
            max_bytes -= len(record.value)
            self.start = record.next_offset
            taken.append(record)
        return taken


class Tail:
    """Follows what is waited for; the thread and its handle begin with the first wait()."""

    def __init__(self, settings: KafkaSettings, on_lost_connection: Callable[[KafkaError], None]) -> None:
        self._settings = settings
        self._on_lost_connection = on_lost_connection
        self._changed = threading.Condition()
        self._places: dict[Place, _Place] = {}
        self._place_by_name: dict[tuple[str, int], Place] = {}
        self._is_moved = False  # the handle must be assigned anew
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def wait(self, seen: Mapping[Place, Offset], timeout_seconds: float) -> bool:
        """Block until there is something at or after one of the offsets; False on time-out."""
        deadline = clock.monotonic() + timeout_seconds
        with self._changed:
            for place, offset in seen.items():
                self._follow(place, offset)
            self._start()
            while not (self._is_closing or any(self._has_news(*item) for item in seen.items())):
                left = deadline - clock.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def take(self, place: Place, offset: Offset, max_bytes: int, known_end: Offset) -> list[Record] | None:
        """Return the records from `offset` on, waiting for one known to be there; None: ask elsewhere."""
        deadline = clock.monotonic() + LATE_SECONDS
        with self._changed:
            while (followed := self._places.get(place)) is not None:
                if followed.start != offset or followed.is_broken or self._is_closing:
                    return None
                if followed.records or known_end <= offset:
                    return followed.take(max_bytes)
                left = deadline - clock.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
        return None

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, place: Place, offset: Offset) -> None:
        """Have the place followed from there; records before it are forgotten.

        Never back: what lies between was given out already, and whoever wants it again asks elsewhere.
        """
        followed = self._places.get(place)
        if followed is not None and not followed.is_broken and offset <= followed.end:
            followed.drop_before(offset)
            return
        self._places[place] = _Place(offset, offset)
        self._place_by_name[self._settings.topic(place[0]), place[1]] = place
        self._is_moved = True

    def _has_news(self, place: Place, offset: Offset) -> bool:
        followed = self._places[place]
        return followed.is_broken or bool(followed.records) or offset < followed.start

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kafka-tail", daemon=True)
            self._thread.start()

    # ---- the thread

    def _run(self) -> None:
        handle = Consumer({**self._settings.reader(), "error_cb": self._on_lost_connection})
        try:
            while not self._is_closing:
                with suppress(KafkaException):  # the library goes on trying by itself
                    self._assign(handle)
                    self._fetch(handle)
        finally:
            handle.close()

    def _assign(self, handle: Consumer) -> None:
        with self._changed:
            if not self._is_moved:
                return
            partitions = [self._partition(place) for place in self._places]
            for followed in self._places.values():
                followed.is_paused = False
            self._is_moved = False
            handle.assign(partitions)

    def _partition(self, place: Place) -> TopicPartition:
        return TopicPartition(self._settings.topic(place[0]), place[1], self._places[place].end)

    def _fetch(self, handle: Consumer) -> None:
        """Take what has come, at least one message if any does in time."""
        first = handle.poll(POLL_SECONDS)
        if first is not None:
            messages = [first, *handle.consume(BATCH, 0)]
            with self._changed:
                if self._is_moved:
                    return  # some may lie behind a gap now; all is fetched again from where each place ends
                for message in messages:
                    self._add(message)
                self._changed.notify_all()
        self._hold_back(handle)

    def _add(self, message: Message) -> None:
        name = (message.topic() or "", message.partition() if message.partition() is not None else -1)
        place = self._place_by_name.get(name)  # type: ignore[arg-type]
        if place is None:
            return
        error = message.error()
        if error is None:
            self._places[place].add(to_record(message))
        elif error.code() in kafka_errors.OUT_OF_RANGE:
            self._places[place].is_broken = True

    def _hold_back(self, handle: Consumer) -> None:
        """Stop fetching what nobody takes, and go on once it is taken."""
        with self._changed:
            for place, followed in self._places.items():
                if not followed.is_paused and followed.size_bytes > MOST_BYTES:
                    handle.pause([self._partition(place)])
                    followed.is_paused = True
                elif followed.is_paused and followed.size_bytes < MOST_BYTES // 2:
                    handle.resume([self._partition(place)])
                    followed.is_paused = False
