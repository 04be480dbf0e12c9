"""The table `[kafka]`: how the replication log's brokers are reached, and how its topics are made.

Promises: a setting of the client library that a promise of the log rests on, or that runs or loads something,
cannot be given here.
Does not: connect, or read the files that it names (adapters.kafka_settings).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator

from hgfleet.config.section import Count, Section, setting
from hgfleet.config.units import Duration, Names, OptionalFilePath, Size, format_size
from hgfleet.model.message import MAX_HEADER_BYTES

_RECORD_BYTES = 64 * 1024  # more than Kafka's own part of a record
# Either hgfleet itself sets these, or what it promises rests on their values, or they run or load something.
_OWN_CLIENT_SETTINGS = frozenset(
    {
        "acks", "request.required.acks", "enable.idempotence", "transactional.id", "transaction.timeout.ms",
        "bootstrap.servers", "metadata.broker.list", "linger.ms", "queue.buffering.max.ms", "retries",
        "message.send.max.retries", "max.in.flight", "max.in.flight.requests.per.connection",
        "message.timeout.ms", "delivery.timeout.ms", "enable.gapless.guarantee", "message.max.bytes",
        "group.id", "group.instance.id", "enable.auto.commit", "auto.commit.enable", "auto.offset.reset",
        "enable.auto.offset.store", "isolation.level", "enable.partition.eof", "check.crcs", "partitioner",
        "allow.auto.create.topics", "security.protocol", "sasl.mechanism", "sasl.mechanisms",
        "sasl.username", "sasl.password", "ssl.ca.location", "ssl.certificate.location", "ssl.key.location",
        "enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm",
        "sasl.kerberos.kinit.cmd", "plugin.library.paths", "test.mock.num.brokers", "dr_cb", "error_cb",
    }
)  # fmt: skip


def _check_client_settings(items: tuple[str, ...]) -> tuple[str, ...]:
    for item in items:
        name, is_set, _ = item.partition("=")
        if not is_set or not name.strip():
            raise ValueError('expected settings such as "socket.keepalive.enable=true"')
        if name.strip() in _OWN_CLIENT_SETTINGS:
            raise ValueError(f"{name.strip()} is not yours to set here: hgfleet sets it or relies on it")
    return items


ClientSettings = Annotated[Names, AfterValidator(_check_client_settings)]


class KafkaSection(Section):
    """Kafka as the replication log; used with log.kind = "kafka" only."""

    brokers: Names = setting(["localhost:9092"], "some of the brokers, each as host:port")
    topic_prefix: str = setting("", "stands before the names of our topics, and of our consumer groups")
    replication_factor: Count = setting(3, "copies of each partition; used by `hgfleet log create`")
    min_isr: Count = setting(2, "copies that must have a record before it counts as appended")
    retention_seconds: Duration = setting(
        "7d", "how long pushdataaggregator keeps its records; pushdata is trimmed by hgfleet", key="retention"
    )
    max_message_bytes: Size = setting("9MiB", "largest record that the topics take", key="max_message")
    append_timeout_seconds: Duration = setting(
        "8s", "a record that is not acknowledged by then is in doubt", key="append_timeout"
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = setting(
        "plaintext", "how brokers are connected to: plaintext, ssl, sasl_plaintext or sasl_ssl"
    )
    ca_file: OptionalFilePath = setting("", "certificates of the brokers' CA; \"\": the system's")
    certificate: OptionalFilePath = setting("", "our certificate for the brokers, if they ask for one")
    key: OptionalFilePath = setting("", "private key of that certificate")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = setting(
        "SCRAM-SHA-512", "how we log in where security_protocol is sasl_*"
    )
    username: str = setting("", "as whom we log in")
    password_file: OptionalFilePath = setting("", "file with the password")
    client: ClientSettings = setting(
        [],
        'further settings of the client library, as ["name=value"]; what a promise rests on is refused',
    )


def find_kafka_conflicts(
    kafka: KafkaSection, inline_limit_bytes: int, append_deadline_seconds: float
) -> Iterator[str]:
    """Yield what of the section cannot work, alone or with the rest of the file."""
    largest = inline_limit_bytes + MAX_HEADER_BYTES + _RECORD_BYTES
    if largest > kafka.max_message_bytes:
        yield (
            f"kafka.max_message: must be at least {format_size(largest)} for this log.inline_limit, "
            "or a push may not fit into a record"
        )
    if kafka.min_isr > kafka.replication_factor:
        yield "kafka.min_isr: is above kafka.replication_factor, so nothing could ever be appended"
    if kafka.append_timeout_seconds >= append_deadline_seconds:
        yield "kafka.append_timeout: must be below push.append_deadline, or a push ends before its answer"
    if kafka.security_protocol.startswith("sasl") and not (kafka.username and kafka.password_file):
        yield "kafka.security_protocol: sasl needs kafka.username and kafka.password_file"
    if (kafka.certificate is None) != (kafka.key is None):
        yield "kafka.certificate: goes together with kafka.key"
