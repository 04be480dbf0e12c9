"""What the log in Kafka keeps beyond the port's contract: gaps, overruns, lost topics, listeners, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from hgfleet.adapters.kafka_appender import Appender
from hgfleet.adapters.kafka_log import KafkaLog
from hgfleet.adapters.kafka_progress import KafkaProgress
from hgfleet.adapters.kafka_settings import KafkaSettings, kafka_settings
from hgfleet.adapters.kafka_topics import create_topics, find_differences
from hgfleet.adapters.tls import CertificateFiles, ensure_certificates
from hgfleet.config.kafka_table import KafkaSection
from hgfleet.errors import ConfigError, InDoubtError, RejectedError, TransientError
from hgfleet.model.ids import Epoch, HostName, Offset, Partition, Position
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord
from tests.support.kafka import ClientListener, KafkaCluster, running_kafka
from tests.support.kafka_topics import make_topics, new_settings, plans_for
from tests.support.mock_kafka import MockKafka, running_mock_kafka
from tests.support.waiting import wait_until

ZERO = Partition(0)
PUSHDATA = (Topic.PUSHDATA, ZERO)
FAR = 10_000_000


def push(*values: bytes) -> list[NewRecord]:
    return [NewRecord(Topic.PUSHDATA, ZERO, value) for value in values]


@pytest.fixture
def settings(kafka_broker: KafkaCluster) -> KafkaSettings:
    return make_topics(kafka_broker, partitions=1)


@pytest.fixture
def log(settings: KafkaSettings) -> Iterator[KafkaLog]:
    log = KafkaLog(settings)
    yield log
    log.close()


# ---- reading


def test_a_reader_that_waits_behind_another_one_makes_nobody_skip_a_record(log: KafkaLog) -> None:
    values = [b"%d " % number + b"x" * 2000 for number in range(600)]
    is_over = threading.Event()

    def wait_behind() -> None:
        while not is_over.is_set():
            for offset in (0, len(seen) // 2, max(0, len(seen) - 3)):
                log.wait({PUSHDATA: Offset(offset)}, 0.01)

    seen: list[bytes] = []
    behind = threading.Thread(target=wait_behind)
    behind.start()
    try:
        offset = Offset(0)
        for first in range(0, len(values), 60):
            log.append(push(*values[first : first + 60]))
            while len(seen) < first + 60:
                assert log.wait({PUSHDATA: offset}, 20.0)
                for record in log.read(*PUSHDATA, offset, 20_000):
                    seen.append(record.value)
                    offset = record.next_offset
    finally:
        is_over.set()
        behind.join()
    assert seen == values


def test_a_transactions_markers_are_gaps_that_nobody_stumbles_over(
    log: KafkaLog, settings: KafkaSettings
) -> None:
    log.append(push(b"before"))
    foreign = Producer({**settings.client, "transactional.id": settings.topic_prefix})
    foreign.init_transactions(20)
    foreign.begin_transaction()
    foreign.produce(settings.topic(Topic.PUSHDATA), b"theirs", partition=0)
    foreign.commit_transaction(20)
    # offsets now: before, theirs, marker
    end = log.end_offset(*PUSHDATA)
    records = log.read(*PUSHDATA, Offset(0), FAR)
    assert [record.value for record in records] == [b"before", b"theirs"]
    assert end == records[-1].offset + 1
    assert log.read(*PUSHDATA, end, FAR) == []
    after = log.append(push(b"after"))[0]
    [record] = log.read(*PUSHDATA, end, FAR)
    assert (record.value, record.next_offset) == (b"after", after)
    assert after == end + 2


def test_an_open_transaction_of_somebody_else_hides_nothing(log: KafkaLog, settings: KafkaSettings) -> None:
    foreign = Producer({**settings.client, "transactional.id": settings.topic_prefix})
    foreign.init_transactions(20)
    foreign.begin_transaction()
    foreign.produce(settings.topic(Topic.PUSHDATA), b"theirs", partition=0)
    foreign.flush(20)
    log.append(push(b"ours"))
    assert [record.value for record in log.read(*PUSHDATA, Offset(0), FAR)] == [b"theirs", b"ours"]
    foreign.abort_transaction(20)


def test_retention_that_overtakes_a_waiting_reader_is_told_and_never_skipped(
    log: KafkaLog, settings: KafkaSettings
) -> None:
    offsets = log.append(push(*(b"%d" % number for number in range(10))))
    late = KafkaLog(settings)
    try:
        first = late.read(*PUSHDATA, Offset(0), 1)
        assert [record.value for record in first] == [b"0"]
        log.drop_before(*PUSHDATA, offsets[5])
        late.wait({PUSHDATA: Offset(1)}, 5)
        with pytest.raises(RejectedError) as caught:
            late.read(*PUSHDATA, Offset(1), FAR)
        assert caught.value.code == "log.overrun"
        assert [record.value for record in late.read(*PUSHDATA, offsets[5], FAR)] == [b"6", b"7", b"8", b"9"]
    finally:
        late.close()


def test_what_is_followed_stays_within_bounds_and_nothing_is_lost(
    log: KafkaLog, settings: KafkaSettings
) -> None:
    assert not log.wait({PUSHDATA: Offset(0)}, 0.5)
    writer = KafkaLog(settings)
    sizes = [500_000] * 40
    for _ in range(4):
        writer.append(push(*(b"x" * size for size in sizes[:10])))
    writer.close()
    offset, seen = Offset(0), 0
    deadline = time.monotonic() + 60
    while seen < 40 and time.monotonic() < deadline:
        log.wait({PUSHDATA: offset}, 1)
        records = log.read(*PUSHDATA, offset, 600_000)
        assert [record.offset for record in records] == list(range(offset, offset + len(records)))
        seen += len(records)
        offset = records[-1].next_offset if records else offset
    assert seen == 40


# ---- the same log


def test_a_topic_made_anew_is_another_log_and_takes_nothing_from_who_knew_the_old_one(
    log: KafkaLog, settings: KafkaSettings, kafka_broker: KafkaCluster
) -> None:
    log.append(push(b"old"))
    admin = AdminClient(settings.admin())
    (gone,) = admin.delete_topics([settings.topic(Topic.PUSHDATA)], operation_timeout=20).values()
    gone.result()
    wait_until(
        lambda: create_topics(settings, plans_for(kafka_broker, settings, 1)), what="the topic is made anew"
    )

    def is_refused() -> bool:
        try:
            log.append(push(b"more"))
        except TransientError as error:
            return error.code == "log.replaced"
        except InDoubtError:
            return False
        return False

    wait_until(is_refused, what="the old log is closed", deadline_seconds=60)
    with pytest.raises(TransientError) as caught:
        log.read(*PUSHDATA, Offset(0), FAR)
    assert caught.value.code == "log.replaced"
    again = KafkaLog(settings)
    assert again.log_id != log.log_id
    again.close()


def test_without_its_topics_the_command_that_makes_them_is_named(kafka_broker: KafkaCluster) -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaLog(new_settings(kafka_broker))
    assert caught.value.code == "log.missing"
    assert "hgfleet log create" in caught.value.hint


def test_without_a_broker_opening_says_so(
    kafka_broker: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hgfleet.adapters.kafka_log.ADMIN_SECONDS", 1.0)
    nowhere = replace(new_settings(kafka_broker), client={"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(TransientError) as caught:
        KafkaLog(nowhere)
    assert caught.value.code == "log.unreachable"


def test_topics_made_as_planned_differ_in_nothing_and_a_missing_one_is_named(
    settings: KafkaSettings, kafka_broker: KafkaCluster
) -> None:
    plans = plans_for(kafka_broker, settings, 1)
    assert find_differences(settings, plans) == []
    more = plans_for(kafka_broker, settings, 4)
    assert [(each.what, each.wanted, each.found) for each in find_differences(settings, more)] == [
        ("partitions", "4", "1")
    ]
    admin = AdminClient(settings.admin())
    (gone,) = admin.delete_topics([settings.topic(Topic.FEED)], operation_timeout=20).values()
    gone.result()
    wait_until(
        lambda: settings.topic(Topic.FEED) not in admin.list_topics(timeout=10).topics, what="it is gone"
    )
    assert [(each.topic, each.mend) for each in find_differences(settings, plans)] == [
        (settings.topic(Topic.FEED), "hgfleet log create")
    ]


def test_progress_comes_back_with_its_epoch(settings: KafkaSettings) -> None:
    board = KafkaProgress(settings)
    board.commit(HostName("mirror1"), {ZERO: Position(Offset(7), Epoch(3))})
    board.commit(HostName("mirror1"), {ZERO: Position(Offset(9), Epoch(4))})
    board.commit(HostName("mirror2"), {ZERO: Position(Offset(1), Epoch(3))})
    assert board.committed() == {
        HostName("mirror1"): {ZERO: Position(Offset(9), Epoch(4))},
        HostName("mirror2"): {ZERO: Position(Offset(1), Epoch(3))},
    }
    board.close()


# ---- appending


def test_a_record_that_is_too_large_is_refused_before_it_is_handed_over(
    log: KafkaLog, settings: KafkaSettings
) -> None:
    with pytest.raises(TransientError) as caught:
        log.append(push(b"fits", b"x" * (settings.max_message_bytes + 1)))
    assert caught.value.code == "log.too-large"
    assert log.end_offset(*PUSHDATA) == 0
    log.append(push(b"x" * settings.max_message_bytes))


def test_a_log_in_health_has_no_obstacle_and_is_asked_in_little_time(log: KafkaLog) -> None:
    assert log.find_obstacle(*PUSHDATA) == ""
    assert "no such partition" in log.find_obstacle(Topic.PUSHDATA, Partition(77))


def test_an_append_that_was_not_answered_is_no_obstacle_for_ever_although_nobody_appends(
    settings: KafkaSettings, kafka_broker: KafkaCluster
) -> None:
    log = KafkaLog(replace(settings, append_seconds=1.5))
    log.append(push(b"before"))
    [broker] = kafka_broker.brokers
    broker.pause()
    try:
        with pytest.raises(InDoubtError):
            log.append(push(b"in doubt"))
    finally:
        broker.resume()
        kafka_broker.wait_until_usable()
    wait_until(lambda: log.find_obstacle(*PUSHDATA) == "", what="pushes are let in again")
    log.close()


@pytest.fixture
def mock_kafka() -> Iterator[MockKafka]:
    with running_mock_kafka() as mock:
        yield mock


# Kafka's own numbers: what a broker answers to a produce request.
NOT_ENOUGH_REPLICAS, MESSAGE_TOO_LARGE, NOT_AUTHORIZED, REQUEST_TIMED_OUT = 19, 10, 29, 7
OUT_OF_ORDER = 45


def is_taken(appender: Appender) -> bool:
    try:
        return bool(appender.append(push(b"again")))
    except InDoubtError:
        return False
    except TransientError as error:
        # The library remembers a missing right for a while; a producer that it gave up takes nothing.
        if error.code not in {"log.denied", "log.busy"}:
            raise
        return False


def test_an_error_that_ends_the_producer_is_in_doubt_and_another_one_goes_on(mock_kafka: MockKafka) -> None:
    appender = mock_kafka.appender(append_seconds=3.0)
    appender.append(push(b"fine"))
    before = appender._producer
    mock_kafka.fail_produce(OUT_OF_ORDER)
    with pytest.raises(InDoubtError):
        appender.append(push(b"the end"))
    wait_until(lambda: is_taken(appender), what="the next producer goes on")
    assert appender._producer is not before
    appender.close()


@pytest.mark.parametrize("code", [MESSAGE_TOO_LARGE, NOT_AUTHORIZED])
def test_whatever_a_broker_answers_after_the_hand_over_is_in_doubt(mock_kafka: MockKafka, code: int) -> None:
    appender = mock_kafka.appender(append_seconds=3.0)
    appender.append(push(b"fine"))
    mock_kafka.fail_produce(code)
    with pytest.raises(InDoubtError):
        appender.append(push(b"refused"))
    wait_until(lambda: is_taken(appender), what="the next one is taken")
    appender.close()


@pytest.mark.parametrize("code", [NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT])
def test_an_error_that_passes_is_tried_again_by_the_library(mock_kafka: MockKafka, code: int) -> None:
    appender = mock_kafka.appender(append_seconds=10.0)
    appender.append(push(b"fine"))
    mock_kafka.fail_produce(code, code)
    assert appender.append(push(b"in the end"))
    appender.close()


def test_silence_is_in_doubt_and_the_next_append_is_taken_once_the_broker_is_back(
    mock_kafka: MockKafka,
) -> None:
    appender = mock_kafka.appender(append_seconds=1.5)
    appender.append(push(b"fine"))
    mock_kafka.down()
    started = time.monotonic()
    with pytest.raises(InDoubtError):
        appender.append(push(b"lost?"))
    assert time.monotonic() - started < 10
    mock_kafka.up()
    wait_until(lambda: is_taken(appender), what="an append is taken again")
    appender.close()


# ---- listeners with TLS, logins and ACLs

ACCOUNTS = ("primary", "mirror", "stranger")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KafkaCluster, Path]]:
    """One broker that takes only encrypted connections of known accounts, and asks its ACLs about them."""
    directory = tmp_path_factory.mktemp("guarded")
    files = CertificateFiles(
        directory / "ca.pem", directory / "ca-key.pem", directory / "cert.pem", directory / "key.pem"
    )
    ensure_certificates(files, ["127.0.0.1"])
    keystore = directory / "broker.pem"
    keystore.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    module = "org.apache.kafka.common.security"
    listener = ClientListener(
        protocol="SASL_SSL",
        broker={
            "listener.name.clients.ssl.keystore.type": "PEM",
            "listener.name.clients.ssl.keystore.location": str(keystore),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.clients.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.clients.plain.sasl.jaas.config": (
                f"{module}.plain.PlainLoginModule required "
                + "".join(f'user_{name}="secret" ' for name in ("hgfleet", *ACCOUNTS))
                + ";"
            ),
            "listener.name.clients.scram-sha-512.sasl.jaas.config": (
                f"{module}.scram.ScramLoginModule required;"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:hgfleet;User:ANONYMOUS",  # who sets things up; the broker to itself
        },
        client={
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(directory / "ca.pem"),
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "hgfleet",
            "sasl.password": "secret",
        },
        format_arguments=("--add-scram", "SCRAM-SHA-512=[name=hgfleet,password=scrambled]"),
    )
    with running_kafka(directory / "kafka", listener=listener) as cluster:
        yield cluster, directory


def section(
    guarded: tuple[KafkaCluster, Path],
    tmp_path: Path,
    mechanism: str,
    password: str,
    username: str = "hgfleet",
) -> KafkaSettings:
    """Return the settings that an operator's file gives."""
    cluster, directory = guarded
    (tmp_path / "password").write_text(f"{password}\n")
    table = {
        "brokers": cluster.bootstrap.split(","),
        "security_protocol": "sasl_ssl",
        "ca_file": str(directory / "ca.pem"),
        "sasl_mechanism": mechanism,
        "username": username,
        "password_file": str(tmp_path / "password"),
        "topic_prefix": new_settings(cluster).topic_prefix,
        "client": ["socket.keepalive.enable=true"],
    }
    return kafka_settings(KafkaSection.model_validate(table, context={"base": tmp_path}))


@pytest.mark.parametrize(("mechanism", "password"), [("PLAIN", "secret"), ("SCRAM-SHA-512", "scrambled")])
def test_a_log_behind_tls_and_a_login_is_used_like_any_other(
    guarded: tuple[KafkaCluster, Path], tmp_path: Path, mechanism: str, password: str
) -> None:
    settings = section(guarded, tmp_path, mechanism, password)
    create_topics(settings, plans_for(guarded[0], settings, 1))
    log = KafkaLog(settings)
    log.append(push(b"guarded"))
    assert [record.value for record in log.read(*PUSHDATA, Offset(0), FAR)] == [b"guarded"]
    log.close()
    assert password not in repr(settings)


def test_a_wrong_password_is_told_as_such(
    guarded: tuple[KafkaCluster, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hgfleet.adapters.kafka_topics.ADMIN_SECONDS", 3.0)
    settings = section(guarded, tmp_path, "PLAIN", "wrong")
    with pytest.raises(TransientError) as caught:
        create_topics(settings, plans_for(guarded[0], settings, 1))
    assert caught.value.code in {"log.denied", "log.unreachable"}


def allow(settings: KafkaSettings, account: str, *, writes: tuple[Topic, ...], deletes: bool) -> None:
    """Give an account what docs/design/kafka.md lists for a host."""
    operations = {topic: {"READ", "DESCRIBE", "DESCRIBE_CONFIGS"} for topic in Topic}
    for topic in writes:
        operations[topic].add("WRITE")
    if deletes:
        operations[Topic.PUSHDATA].add("DELETE")
    rights = [
        *((ResourceType.TOPIC, settings.topic(t), "LITERAL", each) for t in Topic for each in operations[t]),
        *(
            (ResourceType.GROUP, f"{settings.topic_prefix}hgfleet-", "PREFIXED", each)
            for each in ("READ", "DESCRIBE")
        ),
        (ResourceType.BROKER, "kafka-cluster", "LITERAL", "DESCRIBE"),
    ]
    acls = [
        AclBinding(
            kind,
            name,
            ResourcePatternType[pattern],
            f"User:{account}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for kind, name, pattern, operation in rights
    ]
    admin = AdminClient(settings.admin())
    for answer in admin.create_acls(acls).values():
        answer.result(30)


def test_with_the_documented_acls_a_primary_does_everything_and_a_mirror_can_append_no_push(
    guarded: tuple[KafkaCluster, Path], tmp_path: Path
) -> None:
    operator = section(guarded, tmp_path, "PLAIN", "secret")
    create_topics(operator, plans_for(guarded[0], operator, 1))
    allow(operator, "primary", writes=tuple(Topic), deletes=True)
    allow(operator, "mirror", writes=(Topic.STATE,), deletes=False)
    of = {
        name: replace(section(guarded, tmp_path, "PLAIN", "secret", name), topic_prefix=operator.topic_prefix)
        for name in ACCOUNTS
    }
    with closing(KafkaLog(of["primary"])) as primary, closing(KafkaLog(of["mirror"])) as mirror:
        primary.append(push(b"one", b"two"))
        assert primary.find_obstacle(*PUSHDATA) == ""
        primary.drop_before(*PUSHDATA, Offset(1))
        assert [record.value for record in mirror.read(*PUSHDATA, Offset(1), FAR)] == [b"two"]
        mirror.append([NewRecord(Topic.STATE, ZERO, b"applied", key=b"mirror")])
        for topic in (Topic.PUSHDATA, Topic.CATALOGUE):
            before = primary.end_offset(topic, ZERO)
            with pytest.raises((InDoubtError, TransientError)):
                mirror.append([NewRecord(topic, ZERO, b"forged")])
            assert primary.end_offset(topic, ZERO) == before
        with pytest.raises(TransientError) as caught:
            mirror.drop_before(*PUSHDATA, Offset(2))
        assert caught.value.code == "log.denied"
        with closing(KafkaProgress(of["mirror"])) as board:
            position = Position(Offset(1), Epoch(1))
            board.commit(HostName("mirror1"), {ZERO: position})
            assert board.committed() == {HostName("mirror1"): {ZERO: position}}
        mirror.append([NewRecord(Topic.STATE, ZERO, b"goes on", key=b"mirror")])
        primary.append(push(b"three"))
    with pytest.raises((ConfigError, TransientError)):
        KafkaLog(of["stranger"])
