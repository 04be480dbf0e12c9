"""What every replication log must keep. An adapter's test class names how to make one, and nothing else."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgfleet.adapters.kafka_log import KafkaLog
from hgfleet.adapters.sqlite_log import SqliteLog, open_or_create_sqlite_log
from hgfleet.errors import RejectedError
from hgfleet.model.ids import Partition
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord, Record, ReplicationLog
from tests.support.kafka import KafkaCluster
from tests.support.kafka_topics import make_topics

ZERO = Partition(0)
ONE = Partition(1)
FAR = 10_000_000


def pushes(*values: bytes, partition: Partition = ZERO) -> list[NewRecord]:
    return [NewRecord(Topic.PUSHDATA, partition, value) for value in values]


def read_all(log: ReplicationLog, topic: Topic = Topic.PUSHDATA, partition: Partition = ZERO) -> list[Record]:
    return log.read(topic, partition, log.first_offset(topic, partition), FAR)


class ReplicationLogContract(ABC):
    """Runs on every adapter, with three partitions of pushdata."""

    @abstractmethod
    def log(self) -> ReplicationLog:
        """The log to test, a fixture."""

    def test_every_topic_has_its_partitions(self, log: ReplicationLog) -> None:
        assert [log.partitions(topic) for topic in Topic] == [1, 3, 1, 1]

    def test_an_empty_partition_begins_and_ends_at_the_same_offset(self, log: ReplicationLog) -> None:
        first = log.first_offset(Topic.PUSHDATA, ZERO)
        assert log.end_offset(Topic.PUSHDATA, ZERO) == first
        assert log.read(Topic.PUSHDATA, ZERO, first, FAR) == []

    def test_records_come_back_in_order_as_they_were_appended(self, log: ReplicationLog) -> None:
        values = [b"one", b"", b"\x00\xff" * 100_000, b"four"]
        before = time.time()
        offsets = [log.append(pushes(value))[0] for value in values]
        records = read_all(log)
        assert [record.value for record in records] == values
        assert [record.next_offset for record in records] == offsets
        assert offsets == sorted(set(offsets))
        assert all(before - 1 <= record.at <= time.time() + 1 for record in records)
        assert log.end_offset(Topic.PUSHDATA, ZERO) == offsets[-1]

    def test_several_records_of_one_append_keep_their_order_in_each_partition(
        self, log: ReplicationLog
    ) -> None:
        offsets = log.append([*pushes(b"a", b"b"), *pushes(b"c", partition=ONE), *pushes(b"d")])
        assert [record.value for record in read_all(log)] == [b"a", b"b", b"d"]
        assert [record.value for record in read_all(log, partition=ONE)] == [b"c"]
        ends = [record.next_offset for record in read_all(log)]
        assert [offsets[0], offsets[1], offsets[3]] == ends

    def test_topics_and_partitions_do_not_mix(self, log: ReplicationLog) -> None:
        for topic in Topic:
            log.append([NewRecord(topic, ZERO, topic.value.encode(), key=b"key")])
        for topic in Topic:
            assert [record.value for record in read_all(log, topic)] == [topic.value.encode()]
        assert read_all(log, partition=ONE) == []

    def test_keys_come_back(self, log: ReplicationLog) -> None:
        log.append([NewRecord(Topic.STATE, ZERO, b"{}", key="mitglied/ä".encode())])
        assert read_all(log, Topic.STATE)[0].key == "mitglied/ä".encode()

    def test_a_tombstone_is_an_empty_value(self, log: ReplicationLog) -> None:
        log.append(
            [NewRecord(Topic.STATE, ZERO, b"{}", key=b"k"), NewRecord(Topic.STATE, ZERO, b"", key=b"k")]
        )
        assert read_all(log, Topic.STATE)[-1].value == b""

    def test_reading_goes_on_at_the_next_offset(self, log: ReplicationLog) -> None:
        log.append(pushes(*(b"%d" % number for number in range(10))))
        seen, offset = [], log.first_offset(Topic.PUSHDATA, ZERO)
        while records := log.read(Topic.PUSHDATA, ZERO, offset, 3):
            seen += [record.value for record in records]
            offset = records[-1].next_offset
        assert seen == [b"%d" % number for number in range(10)]

    def test_a_read_returns_at_least_one_record_and_about_as_much_as_asked(self, log: ReplicationLog) -> None:
        log.append(pushes(*[b"x" * 1000] * 20))
        first = log.first_offset(Topic.PUSHDATA, ZERO)
        assert len(log.read(Topic.PUSHDATA, ZERO, first, 1)) == 1
        assert 2 <= len(log.read(Topic.PUSHDATA, ZERO, first, 3000)) <= 5

    def test_reading_at_the_end_returns_nothing(self, log: ReplicationLog) -> None:
        end = log.append(pushes(b"a"))[0]
        assert log.read(Topic.PUSHDATA, ZERO, end, FAR) == []

    def test_reading_behind_the_start_is_said_and_never_skipped(self, log: ReplicationLog) -> None:
        offsets = log.append(pushes(b"a", b"b", b"c"))
        first = log.first_offset(Topic.PUSHDATA, ZERO)
        log.drop_before(Topic.PUSHDATA, ZERO, offsets[1])
        assert log.first_offset(Topic.PUSHDATA, ZERO) == offsets[1]
        with pytest.raises(RejectedError) as caught:
            log.read(Topic.PUSHDATA, ZERO, first, FAR)
        assert caught.value.code == "log.overrun"
        assert [record.value for record in log.read(Topic.PUSHDATA, ZERO, offsets[1], FAR)] == [b"c"]

    def test_offsets_go_on_after_retention(self, log: ReplicationLog) -> None:
        end = log.append(pushes(b"a", b"b"))[-1]
        log.drop_before(Topic.PUSHDATA, ZERO, end)
        assert log.end_offset(Topic.PUSHDATA, ZERO) == end
        assert log.append(pushes(b"c"))[0] > end

    def test_what_was_dropped_stays_dropped_and_other_partitions_are_whole(self, log: ReplicationLog) -> None:
        offsets = log.append([*pushes(b"a", b"b", b"c"), *pushes(b"x", partition=ONE)])
        log.drop_before(Topic.PUSHDATA, ZERO, offsets[1])
        log.drop_before(Topic.PUSHDATA, ZERO, offsets[0])
        log.drop_before(Topic.PUSHDATA, ZERO, offsets[1])
        assert [record.value for record in read_all(log)] == [b"c"]
        assert [record.value for record in read_all(log, partition=ONE)] == [b"x"]

    def test_waiting_returns_at_once_when_there_is_something(self, log: ReplicationLog) -> None:
        log.append(pushes(b"a", partition=ONE))
        seen = {(Topic.PUSHDATA, number): log.first_offset(Topic.PUSHDATA, number) for number in (ZERO, ONE)}
        assert log.wait(seen, timeout_seconds=30)

    def test_waiting_ends_without_news(self, log: ReplicationLog) -> None:
        end = log.append(pushes(b"a"))[0]
        assert not log.wait({(Topic.PUSHDATA, ZERO): end}, timeout_seconds=0.05)

    def test_waiting_ends_when_another_thread_appends(self, log: ReplicationLog) -> None:
        end = log.append(pushes(b"a"))[0]
        thread = threading.Timer(0.1, lambda: log.append(pushes(b"b")))
        thread.start()
        started = time.monotonic()
        assert log.wait({(Topic.PUSHDATA, ZERO): end}, timeout_seconds=30)
        thread.join()
        assert time.monotonic() - started < 10

    def test_many_threads_append_and_nothing_is_lost(self, log: ReplicationLog) -> None:
        def append(name: int) -> None:
            for number in range(20):
                log.append(pushes(b"%d-%d" % (name, number)))

        threads = [threading.Thread(target=append, args=(name,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = [record.value for record in read_all(log)]
        assert len(values) == 120
        for name in range(6):
            own = [value for value in values if value.startswith(b"%d-" % name)]
            assert own == [b"%d-%d" % (name, number) for number in range(20)]


class TestSqliteLog(ReplicationLogContract):
    @pytest.fixture
    def log(self, tmp_path: Path) -> Iterator[SqliteLog]:
        log = open_or_create_sqlite_log(tmp_path / "log.sqlite", 3)
        yield log
        log.close()


class TestKafkaLog(ReplicationLogContract):
    @pytest.fixture
    def log(self, kafka_broker: KafkaCluster) -> Iterator[KafkaLog]:
        log = KafkaLog(make_topics(kafka_broker, partitions=3))
        yield log
        log.close()
