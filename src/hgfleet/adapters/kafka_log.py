"""The replication log in Kafka: one process's access to its four topics.

The parts: kafka_appender hands over, kafka_tail follows what is waited for, kafka_reader reads everywhere
else, kafka_health knows what the cluster could take. docs/design/kafka.md tells why each has its own handles.

Promises: those of ports.replication_log; a record handed over is never called refused; a topic that was
deleted or made anew takes nothing more from this process, and is noticed within seconds.
Does not: survive fork(): a process that forks opens this afterwards, or never.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from hgfleet.adapters import kafka_errors
from hgfleet.adapters.kafka_appender import Appender
from hgfleet.adapters.kafka_health import Health, read_topic_ids
from hgfleet.adapters.kafka_reader import Reader
from hgfleet.adapters.kafka_settings import KafkaSettings, Place, make_log_id
from hgfleet.adapters.kafka_tail import Tail
from hgfleet.adapters.kafka_topics import ADMIN_SECONDS, read_topic_setting
from hgfleet.errors import ConfigError, InDoubtError
from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord, Record

NO_OFFSET = Offset(0)


class KafkaLog:
    """One process's access to the topics, which must exist."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect. Raises ConfigError `log.missing` without the topics, TransientError without a broker."""
        self._settings = settings
        admin = AdminClient(settings.admin())
        self._partitions = _count_partitions(admin, settings)
        self.log_id, topic_ids = _identify(admin, settings)
        min_isr = {
            topic: int(read_topic_setting(admin, settings.topic(topic), "min.insync.replicas") or 1)
            for topic in Topic
        }
        self._newest: dict[Place, Offset] = {}  # behind the newest record that we know of
        self._newest_lock = threading.Lock()
        self._health = Health(settings, min_isr, topic_ids)
        self._appender = Appender(settings, self._health.note_lost_connection)
        self._reader = Reader(settings)
        self._tail = Tail(settings, self._health.note_lost_connection)

    def partitions(self, topic: Topic) -> int:
        """Return how many partitions the topic has; fixed when the log was made."""
        return self._partitions[topic]

    def append(self, records: Sequence[NewRecord]) -> list[Offset]:
        """Hand the records over, unless the cluster is known to take none."""
        places = {(record.topic, record.partition) for record in records}
        for place in places:
            if reason := self._health.known_obstacle(place):
                raise self._refusal(reason)
        try:
            offsets = self._appender.append(records)
        except InDoubtError:
            self._health.note_answer(places, is_answered=False)
            raise
        self._health.note_answer(places, is_answered=True)
        for record, offset in zip(records, offsets, strict=True):
            self._note_newest((record.topic, record.partition), offset)
        return offsets

    def read(self, topic: Topic, partition: Partition, offset: Offset, max_bytes: int) -> list[Record]:
        """Return records from `offset` on; on the compacted topic, from the first that is left."""
        self._check_same()
        place = (topic, partition)
        records = self._tail.take(place, offset, max_bytes, self._newest.get(place, NO_OFFSET))
        if records is None:
            records = self._reader.read(place, offset, max_bytes)
        if records:
            self._note_newest(place, records[-1].next_offset)
            self._health.note_answer([place], is_answered=True)
        return records

    def first_offset(self, topic: Topic, partition: Partition) -> Offset:
        """Return the offset of the oldest record kept, of the next one while there is none."""
        return self._reader.ends((topic, partition))[0]

    def end_offset(self, topic: Topic, partition: Partition) -> Offset:
        """Return the offset behind the last record; what is no record is left out."""
        place = (topic, partition)
        first, end = self._reader.ends(place)
        if end in (first, self._newest.get(place)):
            return end
        end = self._reader.end_of_records(place)
        self._note_newest(place, end)
        return end

    def drop_before(self, topic: Topic, partition: Partition, offset: Offset) -> None:
        """Forget the records below `offset` (retention). Raises TransientError."""
        place = TopicPartition(self._settings.topic(topic), partition, offset)
        admin = AdminClient(self._settings.admin())
        (answer,) = admin.delete_records([place], request_timeout=ADMIN_SECONDS).values()
        try:
            answer.result()
        except KafkaException as error:
            raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error

    def wait(self, seen: Mapping[Place, Offset], timeout_seconds: float) -> bool:
        """Block until there is news; raise TransientError `log.replaced` when the log is another one."""
        has_news = self._tail.wait(seen, timeout_seconds)
        self._check_same()
        return has_news

    def find_obstacle(self, topic: Topic, partition: Partition) -> str:
        """Return why an append would not be taken now; blocks for a fresh look at the cluster."""
        return self._health.find_obstacle((topic, partition))

    def close(self) -> None:
        """End every thread and connection; no call may be under way."""
        for part in (self._health, self._tail, self._appender, self._reader):
            part.close()

    def _refusal(self, reason: str) -> Exception:
        return kafka_errors.replaced(reason) if self._health.replaced else kafka_errors.unavailable(reason)

    def _check_same(self) -> None:
        if self._health.replaced:
            raise kafka_errors.replaced(self._health.replaced)

    def _note_newest(self, place: Place, offset: Offset) -> None:
        with self._newest_lock:
            self._newest[place] = max(offset, self._newest.get(place, NO_OFFSET))


def _count_partitions(admin: AdminClient, settings: KafkaSettings) -> dict[Topic, int]:
    try:
        topics = admin.list_topics(timeout=ADMIN_SECONDS).topics
    except KafkaException as error:
        raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error
    counts = {
        topic: len(topics[name].partitions) for topic in Topic if (name := settings.topic(topic)) in topics
    }
    missing = [settings.topic(topic) for topic in Topic if not counts.get(topic)]
    if missing:
        raise ConfigError(
            "log.missing",
            "Kafka lacks topics of the log",
            hint="`hgfleet log create` makes them",
            topics=", ".join(missing),
        )
    return counts


def _identify(admin: AdminClient, settings: KafkaSettings) -> tuple[str, dict[Topic, str]]:
    try:
        cluster_id = str(admin.describe_cluster(request_timeout=ADMIN_SECONDS).result().cluster_id)
        topic_ids = read_topic_ids(admin, settings)
    except KafkaException as error:
        raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error
    return make_log_id(cluster_id, topic_ids), topic_ids
