"""The four topics as they should be in a cluster: made by `hgfleet log create`, compared by `hgfleet doctor`.

Promises: an existing topic is never changed, and every difference that matters is reported with the command
that mends it; making what is there already makes nothing.
Does not: delete topics, or move partitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType, TopicMetadata

from hgfleet.adapters import kafka_errors
from hgfleet.adapters.kafka_settings import RECORD_BYTES, KafkaSettings
from hgfleet.errors import ConfigError
from hgfleet.model.message import Topic
from hgfleet.runtime import clock

ADMIN_SECONDS = 15.0
PAUSE_SECONDS = 0.1
FOR_EVER = "-1"
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration asks of the topics."""

    pushdata_partitions: int
    replication_factor: int
    min_isr: int
    retention_seconds: float


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it should be."""

    name: str
    partitions: int
    replication_factor: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it should be, and the command that mends it ("": there is none)."""

    topic: str
    what: str
    wanted: str
    found: str
    mend: str


def plan_topics(settings: KafkaSettings, wanted: Wanted) -> list[TopicPlan]:
    """Return what `hgfleet log create` makes."""
    common = {
        "min.insync.replicas": str(wanted.min_isr),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(settings.max_message_bytes + RECORD_BYTES),
        # Retention goes by when the log took a record, not by what a host's clock said.
        "message.timestamp.type": "LogAppendTime",
    }
    kept = {"cleanup.policy": "delete", "retention.bytes": FOR_EVER}
    retained = kept | {"retention.ms": str(math.ceil(wanted.retention_seconds * 1000))}
    cleanup = {
        Topic.CATALOGUE: kept | {"retention.ms": FOR_EVER},
        # The primary's log agent trims it: by age alone, messages would go that snapshots need, unrecorded.
        Topic.PUSHDATA: kept | {"retention.ms": FOR_EVER},
        Topic.STATE: {"cleanup.policy": "compact"},
        Topic.FEED: retained,
    }
    return [
        TopicPlan(
            settings.topic(topic),
            wanted.pushdata_partitions if topic is Topic.PUSHDATA else 1,
            wanted.replication_factor,
            common | cleanup[topic],
        )
        for topic in Topic
    ]


def create_topics(settings: KafkaSettings, plans: list[TopicPlan]) -> list[str]:
    """Make those that are missing; return their names. Raises ConfigError, or TransientError."""
    admin = AdminClient(settings.admin())
    there = _list_topics(admin)
    missing = [plan for plan in plans if plan.name not in there]
    if not missing:
        return []
    new = [
        NewTopic(plan.name, plan.partitions, plan.replication_factor, config=dict(plan.settings))
        for plan in missing
    ]
    answers = admin.create_topics(new, operation_timeout=ADMIN_SECONDS, request_timeout=ADMIN_SECONDS)
    created = [name for name, answer in answers.items() if _is_created(name, answer)]
    _wait_for(admin, {plan.name for plan in missing})
    return created


def _wait_for(admin: AdminClient, names: set[str]) -> None:
    """Wait until a broker tells of the topics: it answers the making before all have heard of it."""
    deadline = clock.monotonic() + ADMIN_SECONDS
    while not names <= _list_topics(admin).keys() and clock.monotonic() < deadline:
        clock.sleep(PAUSE_SECONDS)


def find_differences(settings: KafkaSettings, plans: list[TopicPlan]) -> list[Difference]:
    """Compare the cluster's topics with the plans. Raises TransientError."""
    admin = AdminClient(settings.admin())
    there = _list_topics(admin)
    differences: list[Difference] = []
    for plan in plans:
        if plan.name in there:
            found = _read_settings(admin, plan.name)
            differences += _compare(settings, plan, there[plan.name], found)
        else:
            differences.append(Difference(plan.name, "topic", "there", MISSING, "hgfleet log create"))
    return differences


def _compare(
    settings: KafkaSettings, plan: TopicPlan, topic: TopicMetadata, found: Mapping[str, str]
) -> Iterator[Difference]:
    bootstrap = f"--bootstrap-server {settings.client.get('bootstrap.servers', '')}"
    if len(topic.partitions) != plan.partitions:
        # Fewer or more than configured is no fault of the topic: the log's own count is the one in force.
        mend = f"set partitions = {len(topic.partitions)} in [log]"
        yield Difference(plan.name, "partitions", str(plan.partitions), str(len(topic.partitions)), mend)
    copies = min((len(partition.replicas) for partition in topic.partitions.values()), default=0)
    if copies < plan.replication_factor:
        mend = f"kafka-reassign-partitions.sh {bootstrap} --reassignment-json-file FILE --execute"
        yield Difference(plan.name, "replication factor", str(plan.replication_factor), str(copies), mend)
    for name, wanted in plan.settings.items():
        if found.get(name) != wanted:
            mend = (
                f"kafka-configs.sh {bootstrap} --alter --entity-type topics --entity-name {plan.name}"
                f" --add-config {name}={wanted}"
            )
            yield Difference(plan.name, name, wanted, found.get(name, ""), mend)


def read_topic_setting(admin: AdminClient, topic: str, name: str) -> str:
    """Return one setting in force. Raises TransientError."""
    return _read_settings(admin, topic).get(name, "")


def _list_topics(admin: AdminClient) -> dict[str, TopicMetadata]:
    try:
        topics: dict[str, TopicMetadata] = admin.list_topics(timeout=ADMIN_SECONDS).topics
    except KafkaException as error:
        raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error
    return {name: topic for name, topic in topics.items() if topic.error is None}


def _read_settings(admin: AdminClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    (answer,) = admin.describe_configs([resource], request_timeout=ADMIN_SECONDS).values()
    try:
        entries = answer.result()
    except KafkaException as error:
        raise kafka_errors.refusal(kafka_errors.as_kafka_error(error)) from error
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def _is_created(name: str, answer: Future[None]) -> bool:
    try:
        answer.result()
    except KafkaException as error:
        reason = kafka_errors.as_kafka_error(error)
        if reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise ConfigError(
            "kafka.create", "Kafka does not make the topic", topic=name, reason=reason.str()
        ) from error
    return True
