"""Accounts as the directory last gave them, in a file of this host, for an outage that a restart falls into.

Promises: the file is readable by its owner only: who can write it could let themselves in. It is a cache:
what is damaged or cannot be written is said once and done without, and answers nothing.
Does not: decide how old an answer may be (cached_directory).
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account

_BUSY_SECONDS = 1.0
_TABLE = """
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY,
    at REAL NOT NULL,
    is_enabled INTEGER NOT NULL,
    groups TEXT NOT NULL,
    keys TEXT NOT NULL
) WITHOUT ROWID"""
T = TypeVar("T")
_log = logging.getLogger("hgfleet.directory")


class AccountCache:
    """One SQLite file; for any number of threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._is_said = False

    def store(self, account: Account, at: float) -> None:
        """Remember an account as of a time (Unix seconds)."""
        groups, keys = json.dumps(sorted(account.groups)), json.dumps(account.keys)
        row = (account.name, at, account.is_enabled, groups, keys)
        self._do(lambda database: database.execute("REPLACE INTO accounts VALUES (?, ?, ?, ?, ?)", row))

    def forget(self, name: AccountName) -> None:
        """Remember an account no longer."""
        self._do(lambda database: database.execute("DELETE FROM accounts WHERE name = ?", (name,)))

    def forget_before(self, at: float) -> None:
        """Remember no longer what is older than a time."""
        self._do(lambda database: database.execute("DELETE FROM accounts WHERE at < ?", (at,)))

    def recall(self, name: AccountName) -> tuple[float, Account] | None:
        """Return an account and as of when it is, None when it is not remembered."""
        return self._do(lambda database: _read(database, name))

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what `work` returns in a transaction; None, and nothing else, when something goes wrong."""
        with self._lock:
            try:
                with self._connect() as database:
                    result = work(database)
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                self._give_up(error)
                return None
            self._is_said = False
            return result

    def _connect(self) -> sqlite3.Connection:
        if self._database is None:
            self._make_private()
            self._database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = OFF")  # a cache: what a crash spoils is made anew
            self._database.execute(_TABLE)
        return self._database

    def _make_private(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)

    def _give_up(self, error: Exception) -> None:
        """Do without, and begin with an empty file where this one is damaged."""
        if not self._is_said:
            self._is_said = True
            extra = {"path": str(self._path), "reason": str(error)}
            _log.warning("directory.cache-unusable", extra=extra)
        if self._database is not None:
            self._database.close()
            self._database = None
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def _read(database: sqlite3.Connection, name: AccountName) -> tuple[float, Account] | None:
    query = "SELECT at, is_enabled, groups, keys FROM accounts WHERE name = ?"
    row = database.execute(query, (name,)).fetchone()
    if row is None:
        return None
    at, is_enabled, groups, keys = row
    return float(at), Account(name, bool(is_enabled), frozenset(json.loads(groups)), tuple(json.loads(keys)))
