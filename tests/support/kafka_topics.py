"""The log's topics in a test's Kafka: each test gets its own, told apart by their prefix."""

from __future__ import annotations

import uuid

from confluent_kafka.admin import AdminClient

from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.adapters.kafka_topics import TopicPlan, Wanted, create_topics, plan_topics
from tests.support.kafka import KafkaCluster


def new_settings(kafka: KafkaCluster) -> KafkaSettings:
    """Return settings with a prefix that nobody else uses; short time-outs suit a test."""
    return KafkaSettings(kafka.client_settings, topic_prefix=new_prefix(), append_seconds=6.0)


def plans_for(kafka: KafkaCluster, settings: KafkaSettings, partitions: int = 8) -> list[TopicPlan]:
    """Return how the topics should be in a cluster of this size."""
    copies = min(3, len(kafka.brokers))
    return plan_topics(settings, Wanted(partitions, copies, max(1, copies - 1), retention_seconds=604800.0))


def make_topics(kafka: KafkaCluster, partitions: int = 8) -> KafkaSettings:
    """Make the four topics and return the settings that name them."""
    settings = new_settings(kafka)
    create_topics(settings, plans_for(kafka, settings, partitions))
    return settings


def fleet_config(kafka: KafkaCluster, prefix: str, more: str = "") -> str:
    """Return the text of a configuration whose log is in this cluster; `more` follows it."""
    copies = min(3, len(kafka.brokers))
    brokers = ", ".join(f'"{broker}"' for broker in kafka.bootstrap.split(","))
    return f"""
[log]
kind = "kafka"
partitions = 8
[kafka]
brokers = [{brokers}]
topic_prefix = "{prefix}"
replication_factor = {copies}
min_isr = {max(1, copies - 1)}
append_timeout = "6s"
{more}
"""


def new_prefix() -> str:
    """Return a prefix of topics that nobody else uses."""
    return f"t{uuid.uuid4().hex[:12]}-"


def leaders(kafka: KafkaCluster, topic: str) -> list[int]:
    """Return the number of the broker that leads each partition of a topic."""
    metadata = AdminClient(dict(kafka.client_settings)).list_topics(topic, timeout=10)
    partitions = metadata.topics[topic].partitions
    return [partitions[number].leader for number in sorted(partitions)]
