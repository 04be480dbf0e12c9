"""Reads Kafka at any offset, and asks where partitions begin and end.

Handles are kept for the next read, but assigned to nothing between two: a handle that stays assigned goes on
asking the broker for more, and what is asked of it next waits behind that. The ends are asked for on a handle
that never reads, for the same reason (502 ms against 1 ms).

Promises: what is returned is everything between two offsets; an offset before the first record kept is an
overrun, one behind the end a log that was replaced. A gap (a transaction's marker, a compacted record) is
part of the record before it.
Does not: follow a partition as it grows (kafka_tail).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hgfleet.adapters import kafka_errors
from hgfleet.adapters.kafka_settings import ClientConfig, KafkaSettings, Place
from hgfleet.errors import TransientError
from hgfleet.model.ids import Offset
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import Record
from hgfleet.runtime import clock

ASK_SECONDS = 8.0  # a lost leader is replaced within these
TRY_SECONDS = 2.0
PAUSE_SECONDS = 0.1
READ_SECONDS = 8.0
POLL_SECONDS = 0.5
FAR_BYTES = 1 << 30
SETTINGS: ClientConfig = {"enable.partition.eof": True, "fetch.wait.max.ms": 5}
COMPACTED = frozenset({Topic.STATE})  # its first records go away, and nobody misses them


class Reader:
    """Reads for any number of threads."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        # By topic: a handle that has read another one takes a second to learn about this one's partitions.
        self._idle: defaultdict[Topic, list[Consumer]] = defaultdict(list)
        self._asking = Consumer(settings.reader() | SETTINGS)

    def ends(self, place: Place) -> tuple[Offset, Offset]:
        """Return the offsets of the first record kept and of the next one to come. Raises TransientError."""
        partition = TopicPartition(self._settings.topic(place[0]), place[1])
        deadline = clock.monotonic() + ASK_SECONDS
        while True:
            try:
                return self._ask_ends(partition)
            except KafkaException as error:
                if clock.monotonic() > deadline:
                    raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error
                self._learn_leaders(partition.topic)

    def _ask_ends(self, partition: TopicPartition) -> tuple[Offset, Offset]:
        ends = self._asking.get_watermark_offsets(partition, timeout=TRY_SECONDS, cached=False)
        if ends is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return Offset(ends[0]), Offset(ends[1])

    def _learn_leaders(self, topic: str) -> None:
        """Have a handle that rests look who leads now: by itself it would not for half a minute."""
        clock.sleep(PAUSE_SECONDS)
        with suppress(KafkaException):
            self._asking.list_topics(topic, timeout=TRY_SECONDS)

    def read(self, place: Place, offset: Offset, max_bytes: int) -> list[Record]:
        """Return records from `offset` on, as the port says."""
        first, end = self.ends(place)
        if offset < first and place[0] not in COMPACTED:
            raise kafka_errors.overrun(offset, first)
        if offset > end:
            raise kafka_errors.replaced(f"{place[0]}/{place[1]} ends at {end}, before {offset}")
        if offset == end:
            return []
        with self._handle(place[0]) as handle:
            start = TopicPartition(self._settings.topic(place[0]), place[1], max(offset, first))
            handle.assign([start])
            try:
                return self._take(handle, end, max_bytes)
            finally:
                handle.unassign()

    def end_of_records(self, place: Place) -> Offset:
        """Return the offset behind the last record, not counting what is no record."""
        first, end = self.ends(place)
        distance = 1
        while distance < 2 * (end - first):
            records = self.read(place, Offset(max(first, end - distance)), FAR_BYTES)
            if records:
                return Offset(records[-1].offset + 1)
            distance *= 2
        return first

    def close(self) -> None:
        """Release every handle; none is in use."""
        self._asking.close()
        for handles in self._idle.values():
            while handles:
                handles.pop().close()

    @contextmanager
    def _handle(self, topic: Topic) -> Iterator[Consumer]:
        """Lend a handle; one that failed is not lent again."""
        with self._lock:
            handle = self._idle[topic].pop() if self._idle[topic] else None
        if handle is None:
            handle = Consumer(self._settings.reader() | SETTINGS)
        try:
            yield handle
        except KafkaException as error:
            handle.close()
            raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error
        except BaseException:
            handle.close()
            raise
        with self._lock:
            self._idle[topic].append(handle)

    @staticmethod
    def _take(handle: Consumer, end: Offset, max_bytes: int) -> list[Record]:
        """Take records up to the size or to `end`. Raises KafkaException, TransientError, RejectedError."""
        records: list[Record] = []
        deadline = clock.monotonic() + READ_SECONDS
        while not records or (max_bytes > 0 and records[-1].next_offset < end):
            message = handle.poll(POLL_SECONDS)
            if message is None:
                if clock.monotonic() > deadline:
                    break
                continue
            error = message.error()
            if error is None:
                records.append(to_record(message))
                max_bytes -= len(records[-1].value)
            elif error.code() == KafkaError._PARTITION_EOF:
                return _close_gap(records, message.offset())
            elif error.code() in kafka_errors.OUT_OF_RANGE or not error.retriable():
                raise KafkaException(error)
        if not records:
            raise TransientError("log.unreachable", "Kafka does not answer")
        return records


def to_record(message: Message) -> Record:
    """Return a message as the port's record."""
    offset = message.offset()
    assert offset is not None  # noqa: S101 - it has none only where it is an error
    milliseconds = message.timestamp()[1]
    return Record(
        Offset(offset), Offset(offset + 1), message.key() or b"", message.value() or b"", milliseconds / 1000
    )


def _close_gap(records: list[Record], end: int | None) -> list[Record]:
    if records and end is not None:
        records[-1] = replace(records[-1], next_offset=Offset(max(end, records[-1].next_offset)))
    return records
