"""The file of the embedded replication log: how it is made, recognised and watched.

Promises: a log is whole and durable, or not there at all; a file that is damaged, cut or no log of ours is
refused when it is opened; what happens to a file under a running process is noticed (FileWatch).
Does not: read or write records (sqlite_log).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hgfleet.errors import ConfigError
from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Topic

DEFAULT_PARTITIONS = 8  # of pushdata
COMPACTED = frozenset({Topic.STATE})
APPLICATION_ID = 0x68676672  # "hgfr" in the header tells our file from any other SQLite file
SCHEMA_VERSION = 1
FULL_CHECK_BYTES = 32 * 1024 * 1024  # a file up to this size is checked page by page when it is opened
_SIDE_FILES = ("-wal", "-shm", "-journal")


def create_sqlite_log(path: Path, pushdata_partitions: int = DEFAULT_PARTITIONS) -> None:
    """Make an empty log (mode 0600); several processes may do so at once, one succeeds.

    Raises ConfigError `log.exists` when the path is taken, `log.uncreatable` when the system refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_creator(path):
            _create(path, pushdata_partitions)
    except FileExistsError as error:
        raise ConfigError("log.exists", "there is a log already", path=str(path)) from error
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            "log.uncreatable", "the log cannot be created", path=str(path), reason=str(error)
        ) from error


@contextmanager
def _only_creator(path: Path) -> Iterator[None]:
    """Keep other creators out, who would remove the side files of a log that is in use already."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(path: Path, pushdata_partitions: int) -> None:
    if path.exists():
        raise FileExistsError(path)
    draft = path.with_name(f".{path.name}.draft")
    _remove(draft)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        _write_schema(draft, pushdata_partitions)
        _fsync(draft, os.O_RDWR)
        # A WAL that a removed log left behind must not be replayed into the new one.
        _remove_side_files(path)
        draft.rename(path)
        _fsync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        _remove(draft)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _remove_side_files(path)


def _remove_side_files(path: Path) -> None:
    for suffix in _SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_schema(path: Path, pushdata_partitions: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        _create_tables(connection, pushdata_partitions)
        connection.execute("COMMIT")
    finally:
        connection.close()  # the last one: it moves the WAL into the file and removes it


def _create_tables(connection: sqlite3.Connection, pushdata_partitions: int) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.execute("INSERT INTO meta VALUES ('log_id', ?)", (uuid.uuid4().hex,))
    connection.execute(
        "CREATE TABLE partitions (topic TEXT, partition INTEGER, first_offset INTEGER NOT NULL,"
        " PRIMARY KEY (topic, partition))"
    )
    for topic in Topic:
        for number in range(pushdata_partitions if topic is Topic.PUSHDATA else 1):
            _create_partition(connection, topic, Partition(number))


def _create_partition(connection: sqlite3.Connection, topic: Topic, partition: Partition) -> None:
    table = table_name(topic, partition)
    connection.execute("INSERT INTO partitions VALUES (?, ?, 0)", (topic.value, partition))
    connection.execute(
        f'CREATE TABLE "{table}" (offset INTEGER PRIMARY KEY, key BLOB NOT NULL, at REAL NOT NULL,'
        " value BLOB NOT NULL)"
    )
    if topic in COMPACTED:
        connection.execute(f'CREATE INDEX "{table}/key" ON "{table}" (key, offset)')


def table_name(topic: Topic, partition: Partition) -> str:
    """Return the table of a partition; its integer key is the record's offset."""
    return f"{topic.value}/{partition}"


def end_offset(connection: sqlite3.Connection, topic: Topic, partition: Partition) -> Offset:
    """Return the next record's offset, as the connection sees it."""
    query = f'SELECT coalesce(max(offset) + 1, 0) FROM "{table_name(topic, partition)}"'  # noqa: S608
    return Offset(connection.execute(query).fetchone()[0])


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Connect to an existing file; what is committed is on disk then."""
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _quoted(path: Path) -> str:
    """Return the path as part of a URI."""
    return "".join(f"%{ord(sign):02x}" if sign in "?#%" else sign for sign in str(path.absolute()))


def check_file(connection: sqlite3.Connection, size_bytes: int) -> None:
    """Look for damage that SQLite itself would notice only when it comes across it.

    Raises ValueError, sqlite3.Error, or ConfigError `log.too-new`.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise ValueError("it is not a replication log")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise ConfigError(
            "log.too-new", "the log was made by a newer release", hint="upgrade", version=version
        )
    if size_bytes <= FULL_CHECK_BYTES:
        finding = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != ("ok",):
            raise ValueError(str(finding[0] if finding else "it cannot be checked"))


def read_log_id(connection: sqlite3.Connection) -> str:
    """Return the id that the log got when it was made. Raises ValueError when it has none."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()
    if row is None:
        raise ValueError("it has no id")
    return str(row[0])


def read_partitions(connection: sqlite3.Connection) -> dict[Topic, int]:
    """Return how many partitions each topic has, after looking into each; ValueError when one is gone."""
    rows = connection.execute("SELECT topic, count(*) FROM partitions GROUP BY topic").fetchall()
    counts = {Topic(name): int(count) for name, count in rows}
    if counts.keys() != set(Topic):
        raise ValueError("a topic is missing")
    for topic, count in counts.items():
        for number in range(count):
            end_offset(connection, topic, Partition(number))
    return counts


class FileWatch:
    """Notices that the file at a path is no longer the one that was opened.

    The file only grows; the inode changes when it was restored from a copy, or removed and made anew.
    """

    def __init__(self, path: Path) -> None:
        """Look at the file for the first time. Raises OSError."""
        self._path = path
        self._identity, self.size_bytes = self._look()

    def find_fault(self) -> str:
        """Return what happened to the file since the last look; "" when nothing did."""
        try:
            identity, size_bytes = self._look()
        except OSError as error:
            return str(error)
        if identity != self._identity:
            return "another file lies at its path"
        if size_bytes < self.size_bytes:
            return "the file was cut"
        self.size_bytes = size_bytes
        return ""

    def _look(self) -> tuple[tuple[int, int], int]:
        status = self._path.stat()
        return (status.st_dev, status.st_ino), status.st_size
