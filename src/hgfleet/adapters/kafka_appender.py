"""Appends to Kafka: one idempotent producer, whose answers a thread of its own collects.

Promises: append() returns only what every copy in sync has; what it raises TransientError for was never
handed to the library; everything else is InDoubtError. A producer that the library gives up is replaced.
Does not: use transactions, choose partitions, or judge what the cluster could take (kafka_health).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from hgfleet.adapters.kafka_errors import as_kafka_error, in_doubt, queue_full, refusal
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.errors import TransientError
from hgfleet.model.ids import Offset
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord

POLL_SECONDS = 0.2  # how long a stop may go unnoticed
GRACE_SECONDS = 5.0  # after the library's own time-out: it answers for every record by then
FLUSH_SECONDS = 2.0


class _Delivery:
    """What became of the records of one append()."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self.is_done = threading.Event()
        self.offsets: list[Offset | None] = [None] * count
        self.error: KafkaError | None = None

    def note(self, number: int, error: KafkaError | None, message: Message) -> None:
        """Take one record's answer; called in the collecting thread."""
        offset = message.offset()
        with self._lock:
            if error is None and offset is not None:
                self.offsets[number] = Offset(offset + 1)
            else:
                self.error = error or KafkaError(KafkaError._FAIL, "no offset")
            self._left -= 1
            if self._left == 0:
                self.is_done.set()


class Appender:
    """One process's producer; several threads may append at once."""

    def __init__(self, settings: KafkaSettings, on_lost_connection: Callable[[KafkaError], None]) -> None:
        self._settings = settings
        self._on_lost_connection = on_lost_connection
        self._lock = threading.Lock()
        self._producer = self._make_producer()
        self._is_closing = False
        self._thread = threading.Thread(target=self._collect, name="kafka-answers", daemon=True)
        self._thread.start()

    def append(self, records: Sequence[NewRecord]) -> list[Offset]:
        """Append the records in order; return each one's next offset."""
        self._check_sizes(records)
        delivery = _Delivery(len(records))
        producer = self._producer
        for number, record in enumerate(records):
            self._produce(producer, record, number, delivery)
        if records and not delivery.is_done.wait(self._settings.append_seconds + GRACE_SECONDS):
            raise in_doubt("no answer")
        if delivery.error is not None:
            self._replace_if_fatal(producer, delivery.error)
            raise in_doubt(delivery.error)
        return [offset for offset in delivery.offsets if offset is not None]

    def close(self) -> None:
        """Wait a little for what is under way, then forget it."""
        self._is_closing = True
        self._thread.join()
        self._producer.flush(FLUSH_SECONDS)

    def _check_sizes(self, records: Sequence[NewRecord]) -> None:
        for record in records:
            size_bytes = len(record.value) + len(record.key)
            if size_bytes > self._settings.max_message_bytes:
                raise TransientError(
                    "log.too-large", "the message is too large for the log", size_bytes=size_bytes
                )

    def _produce(self, producer: Producer, record: NewRecord, number: int, delivery: _Delivery) -> None:
        """Hand one record over. Raises TransientError only while none of the append was."""
        is_tombstone = record.topic is Topic.STATE and not record.value
        try:
            producer.produce(
                self._settings.topic(record.topic),
                value=None if is_tombstone else record.value,
                key=record.key or None,
                partition=record.partition,
                on_delivery=lambda error, message: delivery.note(number, error, message),
            )
        except BufferError as error:
            raise (queue_full() if number == 0 else in_doubt(str(error))) from error
        except KafkaException as error:
            reason = as_kafka_error(error)
            self._replace_if_fatal(producer, reason)
            raise (refusal(reason) if number == 0 else in_doubt(reason)) from error

    def _replace_if_fatal(self, producer: Producer, error: KafkaError) -> None:
        """Begin anew after an error that ends an idempotent producer: it answers nothing any more."""
        if not (error.fatal() or error.code() == KafkaError._FATAL):
            return
        with self._lock:
            if self._producer is producer:
                self._producer = self._make_producer()

    def _make_producer(self) -> Producer:
        return Producer({**self._settings.producer(), "error_cb": self._on_lost_connection})

    def _collect(self) -> None:
        while not self._is_closing:
            with suppress(KafkaException):
                self._producer.poll(POLL_SECONDS)
