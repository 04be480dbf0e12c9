"""The replication log on one machine: a SQLite file in WAL mode, each commit on disk before it is answered.

Each partition is a table whose integer key is the record's offset. The newest record of a table is never
removed, so the next offset is one more than the largest, and no offset is used twice.

Promises: those of ports.replication_log, for any number of processes on one file; several records of one
append() become durable in one commit. A file that was cut, replaced or removed under a running process takes
nothing that would be lost with it: its path is looked at before *and* after each commit.
Does not: work on a network file system (WAL needs shared memory), or judge whether a record counts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hgfleet.adapters.sqlite_log_file import (
    COMPACTED,
    DEFAULT_PARTITIONS,
    FileWatch,
    check_file,
    connect,
    create_sqlite_log,
    end_offset,
    read_log_id,
    read_partitions,
    table_name,
)
from hgfleet.errors import ConfigError, InDoubtError, RejectedError, TransientError
from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord, Record
from hgfleet.runtime import clock

BUSY_SECONDS = 5.0
BUSY_PAUSE_SECONDS = 0.0007
POLL_SECONDS = 0.05  # how late another process's record may be noticed; one's own are noticed at once
COMPACT_EVERY = 1024  # records of the compacted topic between two compactions
DROP_EVERY = 2000  # records that retention removes in one commit
SUPERSEDED_SECONDS = 60.0  # a record outlives the next one of its key as long, for readers on their way
TOMBSTONE_SECONDS = 3600.0  # a deletion is kept as long, for readers that were away

# Said before anything of a commit can have become valid: the WAL frame that makes a commit valid is written
# last and is checksummed as a whole.
_CLEAN_FAILURES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY})


def open_or_create_sqlite_log(path: Path, pushdata_partitions: int = DEFAULT_PARTITIONS) -> SqliteLog:
    """Open the log, after creating it when there is none; several processes may do so at once."""
    if not path.exists():
        try:
            create_sqlite_log(path, pushdata_partitions)
        except ConfigError as error:
            if error.code != "log.exists":
                raise
    return SqliteLog(path)


class SqliteLog:
    """One process's access to the file. Each thread reads on a connection of its own; appends take turns."""

    def __init__(self, path: Path) -> None:
        """Open an existing log. Raises ConfigError `log.missing`, `log.damaged` or `log.too-new`."""
        self._path = path
        self._threads = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._appending = threading.Lock()
        self._changed = threading.Condition()
        self._appends = 0
        self._compaction_due = COMPACT_EVERY
        try:
            self._watch = FileWatch(path)
        except OSError as error:
            raise ConfigError("log.missing", "there is no log", path=str(path), reason=str(error)) from error
        try:
            self._writer = self._connect()
            check_file(self._writer, self._watch.size_bytes)
            self.log_id = read_log_id(self._writer)
            self._partitions = read_partitions(self._writer)
            self._writer.execute("PRAGMA busy_timeout = 0")  # _begin() waits
        except (sqlite3.Error, ValueError) as error:
            self.close()
            raise _damaged(path, error) from error

    def partitions(self, topic: Topic) -> int:
        """Return how many partitions the topic has; fixed when the log was made."""
        return self._partitions[topic]

    def append(self, records: Sequence[NewRecord]) -> list[Offset]:
        """Append the records in one commit."""
        with self._appending:
            self._check_path()
            at = clock.now()
            with self._writing():
                offsets = [self._insert(record, at) for record in records]
            self._note_append(records)
        return offsets

    def read(self, topic: Topic, partition: Partition, offset: Offset, max_bytes: int) -> list[Record]:
        """Return records from `offset` on; on the compacted topic, from the first that is left."""
        with self._reading() as connection:
            rows = connection.execute(
                f'SELECT offset, key, value, at FROM "{table_name(topic, partition)}"'  # noqa: S608
                " WHERE offset >= ? ORDER BY offset",
                (offset,),
            )
            records = _take_records(rows, max_bytes)
            rows.close()
            if topic not in COMPACTED and (not records or records[0].offset != offset):
                _check_overrun(connection, topic, partition, offset)
        return records

    def first_offset(self, topic: Topic, partition: Partition) -> Offset:
        """Return the offset of the oldest record kept, of the next one while there is none."""
        with self._reading() as connection:
            return _first_offset(connection, topic, partition)

    def end_offset(self, topic: Topic, partition: Partition) -> Offset:
        """Return the offset that the next record will have."""
        with self._reading() as connection:
            return end_offset(connection, topic, partition)

    def wait(self, seen: Mapping[tuple[Topic, Partition], Offset], timeout_seconds: float) -> bool:
        """Block until there is news; raise TransientError `log.replaced` when the file is gone."""
        deadline = clock.monotonic() + timeout_seconds
        while True:
            before = (self._appends, self._data_version())
            if self._has_news(seen):
                return True
            if not self._wait_for_change(before, deadline):
                return False

    def drop_before(self, topic: Topic, partition: Partition, offset: Offset) -> None:
        """Forget the records below `offset` in steps, which appends pass; the newest one always stays."""
        start = self.first_offset(topic, partition)
        for step in [*range(start + DROP_EVERY, offset, DROP_EVERY), offset]:
            with self._appending:
                self._check_path()
                self._drop_step(topic, partition, step)

    def find_obstacle(self, topic: Topic, partition: Partition) -> str:
        """Return what is wrong with the file."""
        return self._watch.find_fault() or ""

    def close(self) -> None:
        """Close every thread's connection; no call may be under way."""
        while self._connections:
            self._connections.pop().close()

    # ---- beyond the port

    def compact(
        self,
        superseded_seconds: float = SUPERSEDED_SECONDS,
        tombstone_seconds: float = TOMBSTONE_SECONDS,
    ) -> None:
        """Keep the latest record per key of the compacted topic, and tombstones for a while."""
        with self._appending, self._writing():
            self._compact(superseded_seconds, tombstone_seconds)

    # ---- appending

    def _insert(self, record: NewRecord, at: float) -> Offset:
        table = table_name(record.topic, record.partition)
        offset = end_offset(self._writer, record.topic, record.partition)
        self._writer.execute(
            f'INSERT INTO "{table}" (offset, key, at, value) VALUES (?, ?, ?, ?)',  # noqa: S608
            (offset, record.key, at, record.value),
        )
        return Offset(offset + 1)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction of the writer; whoever enters holds `_appending`."""
        try:
            self._begin()
            yield
        except sqlite3.Error as error:
            self._roll_back()
            raise _refusal(error) from error
        try:
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if _code(error) in _CLEAN_FAILURES:
                raise _refusal(error) from error
            raise _in_doubt(str(error)) from error
        fault = self._watch.find_fault()
        if fault:
            raise _in_doubt(fault)

    def _begin(self) -> None:
        """Take the write lock; SQLite's own wait grows to 100 ms a try, and a busy writer starves it."""
        deadline = clock.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or clock.monotonic() > deadline:
                    raise
                clock.sleep(BUSY_PAUSE_SECONDS)
            else:
                return

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            with suppress(sqlite3.Error):  # the failure that led here is the one to report
                self._writer.execute("ROLLBACK")

    def _check_path(self) -> None:
        fault = self._watch.find_fault()
        if fault:
            raise TransientError("log.replaced", "the log's file was replaced or removed", reason=fault)

    def _note_append(self, records: Sequence[NewRecord]) -> None:
        with self._changed:
            self._appends += 1
            self._changed.notify_all()
        self._compaction_due -= sum(record.topic in COMPACTED for record in records)
        if self._compaction_due <= 0:
            self._compaction_due = COMPACT_EVERY
            # A full disk may keep it from happening now; the records are appended all the same.
            with suppress(TransientError, InDoubtError), self._writing():
                self._compact(SUPERSEDED_SECONDS, TOMBSTONE_SECONDS)

    def _drop_step(self, topic: Topic, partition: Partition, offset: int) -> None:
        try:
            with self._writing():
                self._drop_before(topic, partition, offset)
        except InDoubtError as error:  # dropped or not: the same call again makes sure
            raise TransientError("log.failed", "the log's file cannot be used", reason=str(error)) from error

    def _drop_before(self, topic: Topic, partition: Partition, offset: int) -> None:
        first = min(offset, end_offset(self._writer, topic, partition) - 1)
        self._writer.execute(
            f'DELETE FROM "{table_name(topic, partition)}" WHERE offset < ?',  # noqa: S608
            (first,),
        )
        self._writer.execute(
            "UPDATE partitions SET first_offset = max(first_offset, ?) WHERE topic = ? AND partition = ?",
            (first, topic.value, partition),
        )

    def _compact(self, superseded_seconds: float, tombstone_seconds: float) -> None:
        now = clock.now()
        for topic in COMPACTED:
            table = table_name(topic, Partition(0))
            newest = end_offset(self._writer, topic, Partition(0)) - 1
            self._writer.execute(
                f'DELETE FROM "{table}" AS old WHERE at <= ? AND offset <'  # noqa: S608
                f' (SELECT max(offset) FROM "{table}" WHERE key = old.key)',
                (now - superseded_seconds,),
            )
            self._writer.execute(
                f"DELETE FROM \"{table}\" WHERE at <= ? AND value = x'' AND offset < ?",  # noqa: S608
                (now - tombstone_seconds, newest),
            )

    # ---- reading

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._reader()
        except sqlite3.Error as error:
            self._check_path()
            raise _refusal(error) from error

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = self._connect()
            self._check_path()  # or this thread would read another log than the rest
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._path, BUSY_SECONDS)
        self._connections.append(connection)
        return connection

    def _has_news(self, seen: Mapping[tuple[Topic, Partition], Offset]) -> bool:
        """Ask for all ends in one statement: this runs after every append of anybody."""
        query = " UNION ALL ".join(
            f'SELECT coalesce(max(offset) + 1, 0) FROM "{table_name(*place)}"'  # noqa: S608
            for place in seen
        )
        with self._reading() as connection:
            ends = connection.execute(query).fetchall()
        return any(end > offset for (end,), offset in zip(ends, seen.values(), strict=True))

    def _data_version(self) -> int:
        with self._reading() as connection:
            return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def _wait_for_change(self, before: tuple[int, int], deadline: float) -> bool:
        """Block until this or another process has appended since `before`; False after the deadline."""
        appends, data_version = before
        while (left := deadline - clock.monotonic()) > 0:
            with self._changed:
                if self._changed.wait_for(lambda: self._appends != appends, min(left, POLL_SECONDS)):
                    return True
            self._check_path()
            if self._data_version() != data_version:
                return True
        return False


def _take_records(rows: sqlite3.Cursor, max_bytes: int) -> list[Record]:
    """Take rows until they have `max_bytes` together; at least one."""
    records: list[Record] = []
    left = max_bytes
    while left > 0 or not records:
        row = rows.fetchone()
        if row is None:
            break
        offset, key, value, at = row
        records.append(Record(Offset(offset), Offset(offset + 1), bytes(key), bytes(value), at))
        left -= len(value)
    return records


def _first_offset(connection: sqlite3.Connection, topic: Topic, partition: Partition) -> Offset:
    if topic in COMPACTED:
        query = f'SELECT coalesce(min(offset), 0) FROM "{table_name(topic, partition)}"'  # noqa: S608
        return Offset(connection.execute(query).fetchone()[0])
    row = connection.execute(
        "SELECT first_offset FROM partitions WHERE topic = ? AND partition = ?", (topic.value, partition)
    ).fetchone()
    return Offset(row[0])


def _check_overrun(
    connection: sqlite3.Connection, topic: Topic, partition: Partition, offset: Offset
) -> None:
    first = _first_offset(connection, topic, partition)
    if offset < first:
        raise RejectedError(
            "log.overrun",
            "the log does not reach back so far",
            status=410,
            offset=offset,
            first_offset=first,
        )


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code, without SQLite's extension in the higher bits."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


_REASONS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("log.full", "the log's disk is full"),
    sqlite3.SQLITE_BUSY: ("log.busy", "the log is busy"),
    sqlite3.SQLITE_LOCKED: ("log.busy", "the log is busy"),
    sqlite3.SQLITE_READONLY: ("log.read-only", "the log's file system is read-only"),
    sqlite3.SQLITE_CORRUPT: ("log.damaged", "the log's file is damaged"),
    sqlite3.SQLITE_NOTADB: ("log.damaged", "the log's file is damaged"),
}


def _refusal(error: sqlite3.Error) -> TransientError:
    """Translate a failure after which nothing of the transaction was or will be appended."""
    code, message = _REASONS.get(_code(error), ("log.failed", "the log's file cannot be used"))
    return TransientError(code, message, reason=str(error))


def _in_doubt(reason: str) -> InDoubtError:
    return InDoubtError("log.in-doubt", "the log did not confirm that it keeps the change", reason=reason)


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        "log.damaged",
        "the log's file is damaged",
        hint="restore it from a backup, or move it away to begin an empty log",
        path=str(path),
        reason=str(error),
    )
