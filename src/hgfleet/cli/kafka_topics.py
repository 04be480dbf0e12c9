"""The topics that the configuration asks of Kafka: made by `hgfleet log create`, compared by `doctor`.

Promises: the Kafka library is loaded only where the log is in Kafka; nothing existing is changed.
Does not: print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hgfleet.config.schema import FleetConfig
from hgfleet.errors import RejectedError

if TYPE_CHECKING:
    from hgfleet.adapters.kafka_settings import KafkaSettings
    from hgfleet.adapters.kafka_topics import Difference, TopicPlan


def create_kafka_topics(config: FleetConfig) -> tuple[list[str], list[Difference]]:
    """Make the missing topics; return their names, and how the others differ from what they should be.

    Raises RejectedError where the log is embedded, ConfigError, TransientError.
    """
    from hgfleet.adapters.kafka_topics import MISSING, create_topics, find_differences

    if config.log.kind != "kafka":
        raise RejectedError(
            "log.embedded", "the embedded log is made by the first start", hint="see log.kind"
        )
    settings, plans = _plan(config)
    there = [difference for difference in find_differences(settings, plans) if difference.found != MISSING]
    return create_topics(settings, plans), there


def find_topic_differences(config: FleetConfig) -> list[Difference]:
    """Compare the topics with what they should be; [] where the log is embedded.

    Raises ConfigError, TransientError. For `hgfleet doctor`: each difference has what is wrong and `mend`.
    """
    if config.log.kind != "kafka":
        return []
    from hgfleet.adapters.kafka_topics import find_differences

    return find_differences(*_plan(config))


def describe_difference(difference: Difference) -> str:
    """Return one line for people."""
    return f"{difference.topic}: {difference.what} is {difference.found}, should be {difference.wanted}"


def _plan(config: FleetConfig) -> tuple[KafkaSettings, list[TopicPlan]]:
    from hgfleet.adapters.kafka_settings import kafka_settings
    from hgfleet.adapters.kafka_topics import Wanted, plan_topics

    settings, kafka = kafka_settings(config.kafka), config.kafka
    wanted = Wanted(config.log.partitions, kafka.replication_factor, kafka.min_isr, kafka.retention_seconds)
    return settings, plan_topics(settings, wanted)
