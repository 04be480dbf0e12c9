"""The log agent's index of one log: where the messages that count lie, and how far everything was read.

It is derived: whatever happens to the file, the log gives it back. It belongs to one log by the id of that;
all that outlives a log are the paths bound in it, so that a lost log is not mistaken for one that never was.

Promises: what flush() wrote is one consistent state, after a crash or a power cut, too; what was noted and
not flushed is found all the same; a full disk costs nothing but memory until there is room again.
Does not: decide what counts (model.acceptance), or notice that the log behind an id was cut (the agent
compares `tail`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgfleet.errors import ConfigError, TransientError
from hgfleet.model.acceptance import RepoHead
from hgfleet.model.catalogue import Binding
from hgfleet.model.ids import (
    CATALOGUE,
    NO_DIGEST,
    Digest,
    Epoch,
    Offset,
    Partition,
    Position,
    RepoId,
    RepoPath,
    Seq,
)
from hgfleet.model.message import Message, decode_message, encode_message

SCHEMA = 3
MAX_PENDING = 200_000  # messages noted and not written, before a full disk ends the agent
_SIDE_FILES = ("", "-wal", "-shm")
_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE positions (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " tail TEXT NOT NULL)",
    "CREATE TABLE heads (repository BLOB PRIMARY KEY, partition INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " digest BLOB NOT NULL, offset INTEGER NOT NULL, epoch INTEGER NOT NULL, is_created INTEGER NOT NULL,"
    " is_deleted INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE parked (repository BLOB PRIMARY KEY, partition INTEGER NOT NULL, reason TEXT NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE messages (repository BLOB, seq INTEGER, partition INTEGER NOT NULL,"
    " offset INTEGER NOT NULL, next_offset INTEGER NOT NULL, epoch INTEGER NOT NULL,"
    " size_bytes INTEGER NOT NULL, at REAL NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (repository, seq))"
    " WITHOUT ROWID",
    "CREATE TABLE standing (repository BLOB, number INTEGER, partition INTEGER NOT NULL, wire BLOB NOT NULL,"
    " PRIMARY KEY (repository, number)) WITHOUT ROWID",
    "CREATE TABLE checkpoints (partition INTEGER, offset INTEGER, blob BLOB NOT NULL,"
    " PRIMARY KEY (partition, offset)) WITHOUT ROWID",
    "CREATE TABLE bound (path TEXT PRIMARY KEY, repository BLOB NOT NULL, partition INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE lost (path TEXT PRIMARY KEY, repository BLOB NOT NULL, partition INTEGER NOT NULL)"
    " WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Where one message that counts lies; `position` is the one after it."""

    repository: RepoId
    seq: Seq
    partition: Partition  # of pushdata; of the catalogue for its own messages
    offset: Offset
    position: Position
    size_bytes: int
    at: float = 0.0  # Unix seconds at which the log took it
    blob: Digest = NO_DIGEST  # that it names, if any


@dataclass(frozen=True, slots=True)
class PartitionState:
    """How far a partition was read, and what it says; `tail` tells its last record from any other."""

    position: Position
    tail: str
    heads: dict[RepoId, RepoHead] = field(default_factory=dict)
    parked: dict[RepoId, str] = field(default_factory=dict)
    standing: list[Message] = field(default_factory=list)  # what is in force, in the order to put it back
    checkpoints: dict[Offset, Digest] = field(default_factory=dict)  # where each fold ends, and its blob


class AgentIndex:
    """One agent's index; for one thread."""

    def __init__(self, path: Path, log_id: str) -> None:
        """Open the index; one that is damaged or of another log is made anew. Raises ConfigError."""
        self._path = path
        self._log_id = log_id
        self._entries: dict[tuple[RepoId, Seq], IndexEntry] = {}
        self._heads: dict[RepoId, tuple[Partition, RepoHead]] = {}
        self._parked: dict[RepoId, tuple[Partition, str]] = {}
        self._positions: dict[Partition, tuple[Position, str]] = {}
        self._bindings: dict[RepoPath, Binding | None] = {}
        self._standing: dict[RepoId, tuple[Partition, list[Message]]] = {}
        self._checkpoints: dict[tuple[Partition, Offset], Digest] = {}
        try:
            self._connection = self._open()
        except sqlite3.Error:
            self._remove()
            self._connection = self._make([])

    def reset(self) -> None:
        """Forget everything but the paths: the log is not the one that was indexed."""
        lost = _read_paths(self._connection)
        self._connection.close()
        self._remove()
        self._connection = self._make(lost)

    def load(self) -> dict[Partition, PartitionState]:
        """Return what is known of each partition that was read before."""
        states = {
            Partition(partition): PartitionState(Position(Offset(offset), Epoch(epoch)), tail)
            for partition, offset, epoch, tail in self._select("SELECT * FROM positions")
        }
        for repository, partition, *rest in self._select("SELECT * FROM heads"):
            states[partition].heads[_id(repository)] = _head(*rest)
        for repository, partition, reason in self._select("SELECT * FROM parked"):
            states[partition].parked[_id(repository)] = reason
        for partition, wire in self._select(
            "SELECT partition, wire FROM standing ORDER BY repository, number"
        ):
            states[partition].standing.append(decode_message(wire))
        for partition, offset, blob in self._select("SELECT * FROM checkpoints"):
            states[partition].checkpoints[Offset(offset)] = Digest(blob.hex())
        return states

    def note_message(self, entry: IndexEntry) -> None:
        """Note a message that counts."""
        self._entries[entry.repository, entry.seq] = entry

    def note_head(self, repository: RepoId, partition: Partition, head: RepoHead) -> None:
        """Note a repository's newest message."""
        self._heads[repository] = partition, head

    def note_parked(self, repository: RepoId, partition: Partition, reason: str) -> None:
        """Note that a repository cannot be read on."""
        self._parked[repository] = partition, reason

    def note_standing(self, repository: RepoId, partition: Partition, in_force: Sequence[Message]) -> None:
        """Note what is in force about a repository now."""
        self._standing[repository] = partition, list(in_force)

    def note_checkpoint(self, partition: Partition, offset: Offset, blob: Digest) -> None:
        """Note that the partition has a checkpoint of what is below the offset."""
        self._checkpoints[partition, offset] = blob

    def note_position(self, partition: Partition, position: Position, tail: str) -> None:
        """Note how far a partition was read, after everything before that was noted."""
        self._positions[partition] = position, tail

    def note_bound(self, binding: Binding) -> None:
        """Note that a path was bound."""
        self._bindings[binding.path] = binding

    def note_unbound(self, path: RepoPath) -> None:
        """Note that a path was unbound."""
        self._bindings[path] = None

    def lost(self) -> dict[RepoPath, Binding]:
        """Return what was bound in logs before this one; some of it may be bound in this one, too."""
        rows = self._select("SELECT path, repository, partition FROM lost")
        return {
            RepoPath(path): Binding(RepoPath(path), _id(repository), Partition(partition))
            for path, repository, partition in rows
        }

    def forget_lost(self, path: RepoPath) -> None:
        """Forget a path of a log before this one, by somebody's decision."""
        try:
            self._connection.execute("DELETE FROM lost WHERE path = ?", (path,))
        except sqlite3.Error as error:
            raise self._failure(error) from error

    @property
    def pending(self) -> int:
        """How many messages wait for flush()."""
        return len(self._entries)

    @property
    def has_pending(self) -> bool:
        """Whether anything waits for flush()."""
        return bool(self._positions or self._entries or self._parked or self._bindings or self._standing)

    def flush(self) -> None:
        """Write what was noted; a full disk leaves it for the next time.

        Raises TransientError `index.failed` when too much waits or the file is damaged: start anew then.
        """
        try:
            with self._transaction():
                self._write()
        except sqlite3.Error as error:
            self._judge(error)
            return
        for noted in (self._entries, self._heads, self._parked, self._positions, self._bindings):
            noted.clear()
        self._standing.clear()
        self._checkpoints.clear()

    def find(self, repository: RepoId, after_seq: int, max_bytes: int) -> list[IndexEntry]:
        """Return where the messages after a seq lie: at least one if any, about `max_bytes` of them."""
        entries: list[IndexEntry] = []
        left = max_bytes
        for entry in self._find(repository, after_seq):
            entries.append(entry)
            left -= entry.size_bytes
            if left <= 0:
                break
        return entries

    def growth(self, repository: RepoId, after_seq: int) -> tuple[int, float]:
        """Return the bytes of the messages after a seq, and when the log took the first of them (or 0)."""
        [(size_bytes, at)] = self._select(
            "SELECT coalesce(sum(size_bytes), 0), coalesce(min(at), 0) FROM messages"
            " WHERE repository = ? AND seq > ?",
            (bytes.fromhex(repository), after_seq),
        )
        waiting = [e for (name, seq), e in self._entries.items() if name == repository and seq > after_seq]
        times = [*([at] if at else []), *(entry.at for entry in waiting)]
        return size_bytes + sum(entry.size_bytes for entry in waiting), min(times, default=0.0)

    def blobs(self) -> set[Digest]:
        """Return every blob that a message or a checkpoint names."""
        rows = self._select("SELECT blob FROM messages WHERE blob != x'' UNION SELECT blob FROM checkpoints")
        waiting = [entry.blob for entry in self._entries.values() if entry.blob]
        return {*(Digest(blob.hex()) for (blob,) in rows), *waiting, *self._checkpoints.values()}

    def forget_before(self, partition: Partition, offset: Offset) -> None:
        """Forget where the messages of a pushdata partition lie that retention has removed."""
        self.flush()
        place = (partition, offset)
        with suppress(sqlite3.OperationalError), self._transaction():  # a full disk: another time
            self._connection.execute(
                "DELETE FROM messages WHERE partition = ? AND offset < ? AND repository != ?",
                (*place, bytes.fromhex(CATALOGUE)),
            )
            self._connection.execute("DELETE FROM checkpoints WHERE partition = ? AND offset < ?", place)

    def close(self) -> None:
        """Write what was noted, if possible, and close."""
        self.flush()
        self._connection.close()

    def _find(self, repository: RepoId, after_seq: int) -> Iterator[IndexEntry]:
        rows = self._select(
            "SELECT seq, partition, offset, next_offset, epoch, size_bytes, at, blob FROM messages"
            " WHERE repository = ? AND seq > ? ORDER BY seq LIMIT 1000",
            (bytes.fromhex(repository), after_seq),
        )
        seq = Seq(after_seq)
        for number, partition, offset, next_offset, epoch, size_bytes, at, blob in rows:
            seq, position = Seq(number), Position(Offset(next_offset), Epoch(epoch))
            place = Partition(partition), Offset(offset)
            yield IndexEntry(repository, seq, *place, position, size_bytes, at, Digest(blob.hex()))
        while (entry := self._entries.get((repository, Seq(seq + 1)))) is not None:
            yield entry
            seq = entry.seq

    # ---- the file

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            return self._make([])
        connection = self._connect()
        known = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if known != self._meta():
            lost = _read_paths(connection)
            connection.close()
            self._remove()
            return self._make(lost)
        return connection

    def _make(self, lost: list[Any]) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            connection = self._connect()
            connection.execute("BEGIN")
            for statement in _TABLES:
                connection.execute(statement)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", self._meta().items())
            connection.executemany("INSERT OR REPLACE INTO lost VALUES (?, ?, ?)", lost)
            connection.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                "index.uncreatable",
                "the log agent's index cannot be made",
                path=str(self._path),
                reason=str(error),
            ) from error
        return connection

    def _meta(self) -> dict[str, str]:
        return {"log_id": self._log_id, "schema": str(SCHEMA)}

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # whole after a power cut, if not the newest
        return connection

    def _remove(self) -> None:
        for suffix in _SIDE_FILES:
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _select(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # the failure that led here is the one to report
                self._connection.execute("ROLLBACK")
            raise

    def _write(self) -> None:
        execute = self._connection.executemany
        execute(
            "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            map(_row, self._entries.values()),
        )
        execute(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (_head_row(repository, *value) for repository, value in self._heads.items()),
        )
        execute(
            "INSERT OR REPLACE INTO parked VALUES (?, ?, ?)",
            ((bytes.fromhex(repository), *value) for repository, value in self._parked.items()),
        )
        execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)",
            (
                (partition, position.offset, position.epoch, tail)
                for partition, (position, tail) in self._positions.items()
            ),
        )
        self._write_standing()
        execute(
            "DELETE FROM bound WHERE path = ?",
            [(path,) for path, binding in self._bindings.items() if binding is None],
        )
        execute(
            "INSERT OR REPLACE INTO bound VALUES (?, ?, ?)",
            [
                (path, bytes.fromhex(binding.repository), binding.partition)
                for path, binding in self._bindings.items()
                if binding is not None
            ],
        )

    def _write_standing(self) -> None:
        execute = self._connection.executemany
        execute(
            "DELETE FROM standing WHERE repository = ?", [(bytes.fromhex(name),) for name in self._standing]
        )
        execute(
            "INSERT INTO standing VALUES (?, ?, ?, ?)",
            [
                (bytes.fromhex(repository), number, partition, encode_message(message))
                for repository, (partition, in_force) in self._standing.items()
                for number, message in enumerate(in_force)
            ],
        )
        execute(
            "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)",
            [(*place, bytes.fromhex(blob)) for place, blob in self._checkpoints.items()],
        )

    def _judge(self, error: sqlite3.Error) -> None:
        """Go on after a full or read-only disk; give the file up after anything else."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        is_harmless = code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR}
        if not is_harmless or self.pending > MAX_PENDING:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> TransientError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}:
            self._remove()  # the next life makes it from the log
        return TransientError("index.failed", "the log agent's index cannot be used", reason=str(error))


def _read_paths(connection: sqlite3.Connection) -> list[Any]:
    """Read what was bound in this log and those before it; nothing when the file cannot tell."""
    try:
        query = "SELECT path, repository, partition FROM"
        return connection.execute(f"{query} lost UNION {query} bound").fetchall()
    except sqlite3.Error:
        return []


def _id(data: object) -> RepoId:
    return RepoId(data.hex() if isinstance(data, bytes) else "")


def _row(entry: IndexEntry) -> tuple[object, ...]:
    return (
        bytes.fromhex(entry.repository),
        entry.seq,
        entry.partition,
        entry.offset,
        entry.position.offset,
        entry.position.epoch,
        entry.size_bytes,
        entry.at,
        bytes.fromhex(entry.blob),
    )


def _head_row(repository: RepoId, partition: Partition, head: RepoHead) -> tuple[object, ...]:
    return (
        bytes.fromhex(repository),
        partition,
        head.seq,
        bytes.fromhex(head.digest),
        head.position.offset,
        head.position.epoch,
        head.is_created,
        head.is_deleted,
    )


def _head(seq: int, digest: bytes, offset: int, epoch: int, is_created: int, is_deleted: int) -> RepoHead:
    return RepoHead(
        seq=Seq(seq),
        digest=Digest(digest.hex()),
        position=Position(Offset(offset), Epoch(epoch)),
        is_created=bool(is_created),
        is_deleted=bool(is_deleted),
    )
