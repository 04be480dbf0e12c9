"""What every Kafka client of ours is configured with.

Promises: what the log's promises rest on is set here and nowhere else; a password comes from its file and is
shown by nobody.
Does not: connect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hgfleet.config.kafka_table import KafkaSection
from hgfleet.errors import ConfigError
from hgfleet.model.ids import Partition
from hgfleet.model.message import Topic

Place = tuple[Topic, Partition]
ClientConfig = dict[str, str | int | float | bool]
RECORD_BYTES = 64 * 1024  # more than a record's own overhead
GROUP_PREFIX = "hgfleet-"


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """One cluster as seen by us; `client` is what librdkafka needs to connect, and may hold a password."""

    client: Mapping[str, str] = field(repr=False)
    topic_prefix: str = ""
    append_seconds: float = 8.0
    max_message_bytes: int = 9 * 1024 * 1024

    def topic(self, topic: Topic) -> str:
        """Return the topic's name in the cluster."""
        return f"{self.topic_prefix}{topic.value}"

    def group(self, host: str) -> str:
        """Return the consumer group under which a host's progress is found by lag tools."""
        return f"{self.topic_prefix}{GROUP_PREFIX}{host}"

    def producer(self) -> ClientConfig:
        """Return a producer's configuration: every copy in sync has a record, once, in order."""
        return {
            **self._common(),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": round(self.append_seconds * 1000),
            "message.max.bytes": self.max_message_bytes + RECORD_BYTES,
        }

    def reader(self) -> ClientConfig:
        """Return the configuration of a handle that reads at given offsets and is in no group's session.

        Uncommitted transactions are read too: we make none, and one left open by another writer would
        otherwise hide everything behind it.
        """
        return {
            **self._common(),
            "group.id": self.group("readers"),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",
            "check.crcs": True,
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 16 * 1024,
        }

    def admin(self) -> ClientConfig:
        """Return the configuration of a handle that asks about the cluster."""
        return self._common()

    def _common(self) -> ClientConfig:
        return {
            # Nobody reads the library's own lines; what matters comes as errors of calls.
            "log_level": 0,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "socket.keepalive.enable": True,
            "socket.nagle.disable": True,
            "topic.metadata.refresh.interval.ms": 10_000,
            "allow.auto.create.topics": False,
            "client.id": "hgfleet",
            **self.client,
        }


def kafka_settings(section: KafkaSection) -> KafkaSettings:
    """Turn the configuration's section into settings. Raises ConfigError `kafka.password`."""
    client = dict(item.split("=", 1) for item in section.client)
    client = {name.strip(): value.strip() for name, value in client.items()}
    client["bootstrap.servers"] = ",".join(section.brokers)
    client["security.protocol"] = section.security_protocol
    files = {
        "ssl.ca.location": section.ca_file,
        "ssl.certificate.location": section.certificate,
        "ssl.key.location": section.key,
    }
    client |= {name: str(path) for name, path in files.items() if path is not None}
    if section.security_protocol.startswith("sasl"):
        client["sasl.mechanisms"] = section.sasl_mechanism
        client["sasl.username"] = section.username
        client["sasl.password"] = _read_password(section.password_file)
    return KafkaSettings(
        client,
        topic_prefix=section.topic_prefix,
        append_seconds=section.append_timeout_seconds,
        max_message_bytes=section.max_message_bytes,
    )


def make_log_id(cluster_id: str, topic_ids: Mapping[Topic, str]) -> str:
    """Return what tells this log from any other, also from one of the same topics made anew."""
    parts = [cluster_id, *(f"{topic}={topic_ids[topic]}" for topic in Topic)]
    return f"kafka-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:32]}"


def _read_password(path: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n") if path is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "kafka.password", "the file with Kafka's password cannot be read", path=path, reason=str(error)
        ) from error
