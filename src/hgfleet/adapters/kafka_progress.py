"""Hosts' progress as Kafka's consumer groups: what every lag tool reads.

A group per host, named in kafka_settings; its committed offset of a partition is a position, whose epoch
travels in the commit's metadata, as an offset alone is no position.

Promises: those of ports.progress.
Does not: consume: nobody is a member of these groups.
"""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from hgfleet.adapters import kafka_errors
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.model.ids import Epoch, HostName, Offset, Partition, Position
from hgfleet.model.message import Topic

ASK_SECONDS = 10.0
_EPOCH = "epoch="


class KafkaProgress:
    """The groups of one cluster."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._topic = settings.topic(Topic.PUSHDATA)
        self._consumers: dict[HostName, Consumer] = {}

    def commit(self, host: HostName, positions: Mapping[Partition, Position]) -> None:
        """Commit the offsets of a host's group, each with its epoch."""
        offsets = [
            TopicPartition(self._topic, partition, position.offset, metadata=f"{_EPOCH}{position.epoch}")
            for partition, position in positions.items()
        ]
        try:
            self._consumer(host).commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error

    def committed(self) -> dict[HostName, dict[Partition, Position]]:
        """Return what every group of ours has committed."""
        admin = AdminClient(self._settings.admin())
        prefix = self._settings.group("")
        try:
            groups = admin.list_consumer_groups(request_timeout=ASK_SECONDS).result().valid
            hosts = [
                group.group_id.removeprefix(prefix) for group in groups if group.group_id.startswith(prefix)
            ]
            return {HostName(host): self._read(admin, host) for host in sorted(hosts)}
        except KafkaException as error:
            raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error

    def close(self) -> None:
        """Release every handle."""
        while self._consumers:
            self._consumers.popitem()[1].close()

    def _consumer(self, host: HostName) -> Consumer:
        if host not in self._consumers:
            group = {"group.id": self._settings.group(host)}
            self._consumers[host] = Consumer({**self._settings.reader(), **group})
        return self._consumers[host]

    def _read(self, admin: AdminClient, host: str) -> dict[Partition, Position]:
        group = ConsumerGroupTopicPartitions(self._settings.group(host))
        (answer,) = admin.list_consumer_group_offsets([group], request_timeout=ASK_SECONDS).values()
        return {
            Partition(place.partition): Position(Offset(place.offset), _parse_epoch(place.metadata))
            for place in answer.result().topic_partitions
            if place.topic == self._topic and place.offset >= 0
        }


def _parse_epoch(metadata: str | None) -> Epoch:
    digits = (metadata or "").removeprefix(_EPOCH)
    return Epoch(int(digits) if digits.isdigit() else 0)
