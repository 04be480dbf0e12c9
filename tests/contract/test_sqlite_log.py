"""What the embedded log keeps beyond its port: its file, other processes, full disks, damage."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from hgfleet.adapters.sqlite_log import SqliteLog, open_or_create_sqlite_log
from hgfleet.adapters.sqlite_log_file import create_sqlite_log
from hgfleet.errors import ConfigError, InDoubtError, TransientError
from hgfleet.model.acceptance import PartitionReader
from hgfleet.model.ids import Offset, Partition, Position
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord
from tests.support.full_disk import small_disk
from tests.support.log_appender import CONTENDED, FIRST_EPOCH, read_on

ROOT = Path(__file__).resolve().parents[2]
ZERO = Partition(0)
FAR = 100_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "log.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = open_or_create_sqlite_log(path, 2)
    yield log
    log.close()


def push(value: bytes) -> list[NewRecord]:
    return [NewRecord(Topic.PUSHDATA, ZERO, value)]


def values(log: SqliteLog, partition: Partition = ZERO) -> list[bytes]:
    return [record.value for record in log.read(Topic.PUSHDATA, partition, Offset(0), FAR)]


@contextmanager
def appender(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.log_appender", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def config_error(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        SqliteLog(path)
    return caught.value.code


# ---- the file


def test_the_file_is_private(log: SqliteLog, path: Path) -> None:
    log.append(push(b"a"))
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.glob("log.sqlite*")}
    assert set(modes.values()) == {0o600}


def test_records_and_id_are_there_when_it_is_opened_again(log: SqliteLog, path: Path) -> None:
    log.append(push(b"a"))
    again = SqliteLog(path)
    assert (again.log_id, values(again)) == (log.log_id, [b"a"])
    again.close()


def test_a_log_made_anew_has_another_id(log: SqliteLog, path: Path) -> None:
    shutil.rmtree(path.parent)
    again = open_or_create_sqlite_log(path)
    assert again.log_id != log.log_id
    again.close()


def test_a_log_is_never_made_over_another(log: SqliteLog, path: Path) -> None:
    log.append(push(b"a"))
    with pytest.raises(ConfigError) as caught:
        create_sqlite_log(path)
    assert caught.value.code == "log.exists"
    assert values(log) == [b"a"]


def test_of_many_that_create_it_at_once_all_get_the_same(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        logs = list(pool.map(lambda _: open_or_create_sqlite_log(path), range(8)))
    assert len({log.log_id for log in logs}) == 1
    for number, log in enumerate(logs):
        log.append(push(b"%d" % number))
    assert values(logs[0]) == [b"%d" % number for number in range(8)]
    for log in logs:
        log.close()


def test_what_a_removed_log_left_behind_does_not_come_back(log: SqliteLog, path: Path) -> None:
    log.append(push(b"old"))
    path.unlink()  # its write-ahead log stays, as with a careless rm
    assert list(path.parent.glob("*-wal"))
    again = open_or_create_sqlite_log(path, 2)
    assert values(again) == []
    again.append(push(b"new"))
    assert values(again) == [b"new"]
    again.close()


def test_a_missing_log_is_said(path: Path) -> None:
    assert config_error(path) == "log.missing"


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is no log" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert config_error(tmp_path / "file") == "log.damaged"
    assert (tmp_path / "file").read_bytes() == content


def test_another_sqlite_file_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "file")
    connection.execute("CREATE TABLE meta (name, value)")
    connection.close()
    assert config_error(tmp_path / "file") == "log.damaged"


def filled(path: Path) -> None:
    log = open_or_create_sqlite_log(path, 2)
    for number in range(60):
        log.append(push(b"%d" % number + b"x" * 4000))
    log.close()


def test_a_cut_file_is_refused(path: Path) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    assert config_error(path) == "log.damaged"


def test_a_damaged_page_is_found_when_the_log_is_opened(path: Path) -> None:
    filled(path)
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * 4096)
    assert config_error(path) == "log.damaged"


def test_a_log_of_a_newer_release_is_refused(log: SqliteLog, path: Path) -> None:
    log.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert config_error(path) == "log.too-new"


# ---- the file under a running process


def test_a_removed_log_takes_nothing_more(log: SqliteLog, path: Path) -> None:
    log.append(push(b"a"))
    shutil.rmtree(path.parent)
    with pytest.raises(TransientError) as caught:
        log.append(push(b"b"))
    assert caught.value.code == "log.replaced"


def test_a_replaced_log_takes_nothing_more_and_ends_a_wait(log: SqliteLog, path: Path) -> None:
    end = log.append(push(b"a"))[0]
    shutil.rmtree(path.parent)
    other = open_or_create_sqlite_log(path, 2)
    with pytest.raises(TransientError):
        log.append(push(b"b"))
    with pytest.raises(TransientError) as caught:
        log.wait({(Topic.PUSHDATA, ZERO): end}, timeout_seconds=10)
    assert caught.value.code == "log.replaced"
    assert values(other) == []


def test_no_thread_reads_another_log_than_the_one_that_was_opened(log: SqliteLog, path: Path) -> None:
    shutil.rmtree(path.parent)
    other = open_or_create_sqlite_log(path, 2)
    other.append(push(b"another"))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(values, log)
    assert isinstance(reading.exception(), TransientError)
    other.close()


def test_a_log_cut_under_a_running_process_takes_nothing_more(path: Path) -> None:
    filled(path)
    log = SqliteLog(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(TransientError) as caught:
        log.append(push(b"b"))
    assert caught.value.code == "log.replaced"
    log.close()


def test_an_append_into_a_log_that_vanishes_during_its_commit_is_in_doubt(
    log: SqliteLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = log._insert

    def insert_and_lose_the_file(record: NewRecord, at: float) -> Offset:
        path.unlink()
        return insert(record, at)

    monkeypatch.setattr(log, "_insert", insert_and_lose_the_file)
    with pytest.raises(InDoubtError):
        log.append(push(b"a"))


# ---- a full disk


def until_refused(log: SqliteLog, value: bytes) -> str:
    """Append until that is refused, as space that the file has already is used first; return why."""
    for _ in range(100):
        try:
            log.append(push(value))
        except TransientError as error:
            return error.code
    return "never refused"


def why_unwritable(path: Path) -> str:
    try:
        log = SqliteLog(path)
    except ConfigError as error:
        return error.code
    try:
        return until_refused(log, b"x")
    finally:
        log.close()


def test_a_full_disk_refuses_cleanly_and_goes_on_when_there_is_room() -> None:
    with small_disk("2m") as disk:
        log = open_or_create_sqlite_log(disk.path / "log.sqlite", 2)
        log.append(push(b"before"))
        disk.fill()
        for size in (10, 100_000, 3_000_000):
            assert until_refused(log, b"x" * size) == "log.full"
        confirmed = values(log)
        disk.free()
        log.append(push(b"after"))
        assert values(log) == [*confirmed, b"after"]
        log.close()
        again = SqliteLog(disk.path / "log.sqlite")
        assert values(again) == [*confirmed, b"after"]
        again.close()


def test_a_read_only_file_system_refuses_and_can_be_read() -> None:
    with small_disk("2m") as disk:
        log = open_or_create_sqlite_log(disk.path / "log.sqlite", 2)
        log.append(push(b"before"))
        log.close()
        disk.make_read_only()
        assert why_unwritable(disk.path / "log.sqlite") in {"log.read-only", "log.failed", "log.damaged"}
        disk.make_writable()
        again = SqliteLog(disk.path / "log.sqlite")
        assert values(again) == [b"before"]
        again.close()


# ---- other processes


def test_a_wait_ends_when_another_process_appends(log: SqliteLog, path: Path) -> None:
    with appender("endless", path, 1, "other") as process:
        assert process.stdout is not None
        process.stdout.readline()
        end = log.end_offset(Topic.PUSHDATA, Partition(1))
        assert log.wait({(Topic.PUSHDATA, Partition(1)): end}, timeout_seconds=20)


def test_two_processes_on_the_same_seq_exactly_one_counts_and_the_other_learns_it(
    log: SqliteLog, path: Path
) -> None:
    with appender("contend", path, 40, "one") as one, appender("contend", path, 40, "two") as two:
        won = {name: process.communicate(timeout=60)[0].split() for name, process in (("1", one), ("2", two))}
    digest_by_seq: dict[str, str] = {}
    for words in won.values():
        assert len(words) == 80
        for seq, digest in zip(words[::2], words[1::2], strict=True):
            assert seq not in digest_by_seq  # never both
            digest_by_seq[seq] = digest
    reader = PartitionReader(Position(Offset(0), FIRST_EPOCH))
    counted = read_on(log, reader)
    assert counted == [digest_by_seq[str(seq)] for seq in range(1, 81)]
    assert (reader.head(CONTENDED).seq, reader.parked) == (80, {})


def test_killed_appenders_leave_everything_they_confirmed_and_no_gap(log: SqliteLog, path: Path) -> None:
    confirmed: dict[str, int] = {}
    for round_ in range(2):
        names = [f"a{round_}", f"b{round_}"]
        with appender("endless", path, 0, names[0]) as one, appender("endless", path, 0, names[1]) as two:
            for name, process in zip(names, (one, two), strict=True):
                assert process.stdout is not None
                for _ in range(15):
                    number, offset = process.stdout.readline().split()
                    confirmed[f"{name} {number}"] = int(offset)
            one.kill()
            two.kill()
    records = log.read(Topic.PUSHDATA, ZERO, Offset(0), FAR)
    assert [record.offset for record in records] == list(range(len(records)))
    there = {record.value.decode(): record.next_offset for record in records}
    assert confirmed.items() <= there.items()
    for name in {key.split()[0] for key in there}:
        own = [int(key.split()[1]) for key in there if key.split()[0] == name]
        assert own == list(range(len(own)))


# ---- compaction


def state(key: str, value: bytes) -> NewRecord:
    return NewRecord(Topic.STATE, ZERO, value, key.encode())


def state_pairs(log: SqliteLog, offset: int = 0) -> list[tuple[str, bytes]]:
    records = log.read(Topic.STATE, ZERO, Offset(offset), FAR)
    return [(record.key.decode(), record.value) for record in records]


def test_compaction_keeps_the_latest_of_each_key_where_it_was(log: SqliteLog) -> None:
    for number in range(10):
        log.append([state("a", b"%d" % number), state("b", b"%d" % number)])
    end = log.end_offset(Topic.STATE, ZERO)
    log.compact(superseded_seconds=0)
    assert state_pairs(log) == [("a", b"9"), ("b", b"9")]
    assert state_pairs(log, end - 1) == [("b", b"9")]
    assert log.end_offset(Topic.STATE, ZERO) == end
    assert log.first_offset(Topic.STATE, ZERO) == end - 2


def test_compaction_spares_what_is_young(log: SqliteLog) -> None:
    log.append([state("a", b"1"), state("a", b"2"), state("a", b"")])
    log.compact()
    assert len(state_pairs(log)) == 3
    log.compact(superseded_seconds=0)
    assert state_pairs(log) == [("a", b"")]


def test_a_tombstone_goes_in_the_end_and_its_offset_is_not_used_again(log: SqliteLog) -> None:
    log.append([state("a", b"1"), state("a", b""), state("b", b"1")])
    log.compact(superseded_seconds=0, tombstone_seconds=0)
    assert state_pairs(log) == [("b", b"1")]
    last = log.append([state("b", b"")])[0]
    log.compact(superseded_seconds=0, tombstone_seconds=0)
    assert log.end_offset(Topic.STATE, ZERO) == last
    assert log.append([state("c", b"1")])[0] == last + 1


def test_the_compacted_topic_stays_small_by_itself(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hgfleet.adapters.sqlite_log.SUPERSEDED_SECONDS", 0.0)
    monkeypatch.setattr("hgfleet.adapters.sqlite_log.COMPACT_EVERY", 64)
    for number in range(70):
        log.append([state(f"key/{key}", b"%d" % number) for key in range(20)])
    assert len(state_pairs(log)) < 20 + 2 * 64 + 20


def test_reading_while_it_is_compacted_sees_every_key(log: SqliteLog) -> None:
    log.append([state(f"key/{key}", b"0") for key in range(50)])
    stop = threading.Event()

    def churn() -> None:
        for number in range(1, 40):
            log.append([state(f"key/{key}", b"%d" % number) for key in range(50)])
            log.compact(superseded_seconds=0)
        stop.set()

    thread = threading.Thread(target=churn)
    thread.start()
    while not stop.is_set():
        assert {key for key, _ in state_pairs(log)} == {f"key/{key}" for key in range(50)}
    thread.join()


def test_a_writer_that_stalls_in_a_transaction_delays_others_and_no_longer(
    log: SqliteLog, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: log.append(push(b"a")))
    thread.start()
    thread.join(timeout=0.2)
    assert thread.is_alive()
    other.execute("ROLLBACK")
    thread.join(timeout=10)
    other.close()
    assert values(log) == [b"a"]


def test_a_writer_that_does_not_end_is_given_up_and_nothing_is_appended(
    log: SqliteLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hgfleet.adapters.sqlite_log.BUSY_SECONDS", 0.1)
    hasty = SqliteLog(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError) as caught:
        hasty.append(push(b"a"))
    assert caught.value.code == "log.busy"
    other.close()
    assert values(log) == []
    hasty.close()
