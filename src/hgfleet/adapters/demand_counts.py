"""demand.sqlite: what a host counted of clones, by the hour, for as long as a day.

Every process of the host that answers clones adds to it; one of them publishes the sums.

Promises: counting never fails a clone and hardly delays one: what cannot be written is said once and lost. A
restart loses nothing; a damaged file is removed and begun again.
Does not: know what a clone is (web.clone_counting), or publish.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hgfleet.model.demand import DAY_SECONDS, CloneReason, DemandCount, DemandKey
from hgfleet.model.ids import RepoId
from hgfleet.runtime import clock

_HOUR_SECONDS = 3600.0
_BUSY_SECONDS = 0.5
_TABLE = """
CREATE TABLE IF NOT EXISTS counts (
    hour INTEGER NOT NULL,
    repository TEXT NOT NULL,
    location TEXT NOT NULL,
    reason TEXT NOT NULL,
    clones INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (hour, repository, location, reason)
) WITHOUT ROWID"""
_ADD = """
INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET clones = clones + excluded.clones, bytes = bytes + excluded.bytes"""
_SUM = """
SELECT repository, location, reason, sum(clones), sum(bytes) FROM counts
WHERE hour > ? GROUP BY repository, location, reason"""
_REASONS = frozenset(reason.value for reason in CloneReason)
_log = logging.getLogger("hgfleet.demand")


class DemandCounts:
    """One file; for any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_said = False

    def add(self, key: DemandKey, count: DemandCount, now: float | None = None) -> None:
        """Count; `now` is Unix seconds."""
        row = (_hour(now), key.repository, key.location, key.reason.value, count.clones, count.size_bytes)
        with self._lock:
            self._do(lambda database: database.execute(_ADD, row))

    def last_day(self, now: float | None = None) -> dict[DemandKey, DemandCount]:
        """Return the sums of the last day and forget what is older; nothing where it cannot be read."""
        first = _hour(now) - round(DAY_SECONDS / _HOUR_SECONDS)
        rows: list[tuple[str, str, str, int, int]] = []

        def read(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM counts WHERE hour <= ?", (first,))
            rows.extend(database.execute(_SUM, (first,)))

        with self._lock:
            self._do(read)
        return {
            DemandKey(RepoId(repository), location, CloneReason(reason)): DemandCount(clones, size_bytes)
            for repository, location, reason, clones, size_bytes in rows
            if reason in _REASONS  # a later release may have counted here
        }

    def _do(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run `work` in a transaction. Opened for each: clones are rare, and processes fork."""
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as database, database:
                database.execute("PRAGMA synchronous = OFF")
                database.execute(_TABLE)
                work(database)
        except sqlite3.OperationalError as error:  # busy, a full disk, no directory
            self._say(error)
        except sqlite3.DatabaseError as error:
            self._say(error)
            self._path.unlink(missing_ok=True)
        else:
            self._is_said = False

    def _say(self, error: Exception) -> None:
        if not self._is_said:
            _log.warning("demand.not-counted", extra={"reason": str(error), "file": str(self._path)})
        self._is_said = True


def _hour(now: float | None) -> int:
    return int((clock.now() if now is None else now) // _HOUR_SECONDS)
