"""The directory of accounts in one TOML file, for a fleet without LDAP.

    [accounts.alice]
    is_enabled = true
    groups = ["developers"]
    keys = ["ssh-ed25519 AAAA… alice@laptop"]
    last_used_on = 2026-01-31

Promises: an account that is not in the file is None; a file that is missing, unreadable or damaged anywhere
is TransientError `directory.unreachable`, never "no such account" (A1). A changed file is noticed at the
next look-up. Writers hold a lock, write beside the file and rename, so a reader sees the old or the new one.
Does not: cache over an outage (ssh.accounts does) or decide access.
"""

from __future__ import annotations

import os
import threading
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.model.ids import AccountName, parse_account_name
from hgfleet.ports.directory import Account
from hgfleet.runtime import clock

_FIELD_TYPES = {"is_enabled": bool, "groups": list, "keys": list}
_StatKey = tuple[int, int, int, int]


class TomlDirectory:
    """The Directory port on a TOML file; safe for several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: _StatKey | None = None
        self._accounts: Mapping[str, Account] = {}
        self._touched_on: dict[AccountName, date] = {}

    def account(self, name: AccountName) -> Account | None:
        with self._lock:
            self._reread_if_changed()
            return self._accounts.get(name)

    def accounts(self) -> list[Account]:
        """Return all accounts by name. Raises TransientError."""
        with self._lock:
            self._reread_if_changed()
            return sorted(self._accounts.values(), key=lambda account: account.name)

    def touch(self, name: AccountName) -> None:
        from hgfleet.adapters.toml_directory_edit import record_use  # pulls in the TOML writer

        today = datetime.fromtimestamp(clock.now(), UTC).date()
        if self._touched_on.get(name) == today:
            return
        self._touched_on[name] = today
        with suppress(FleetError, OSError):
            record_use(self._path, name, today)

    def _reread_if_changed(self) -> None:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
                if seen != self._seen:
                    self._accounts = parse_accounts(file.read())
                    self._seen = seen
        except OSError as error:
            raise _unreachable(self._path, error.strerror or "cannot be read") from error
        except RejectedError as error:
            raise _unreachable(self._path, error.message) from error


def parse_accounts(data: bytes) -> dict[str, Account]:
    """Parse the file's content; raise RejectedError `directory.damaged` with what is wrong."""
    try:
        content = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _damaged("it is not TOML") from error
    entries = content.get("accounts", {})
    if not isinstance(entries, dict) or content.keys() - {"accounts"}:
        raise _damaged("it holds something else than [accounts.<name>]")
    return {name: _account(name, entry) for name, entry in entries.items()}


def _account(name: str, entry: Any) -> Account:
    if not isinstance(entry, dict) or any(
        not isinstance(entry.get(field), kind) for field, kind in _FIELD_TYPES.items()
    ):
        raise _damaged(f"the entry {name!r} lacks a field or has one of the wrong type")
    if not all(isinstance(value, str) for value in [*entry["groups"], *entry["keys"]]):
        raise _damaged(f"a group or key of {name!r} is not a string")
    try:
        checked = parse_account_name(name)
    except RejectedError as error:
        raise _damaged(f"{name!r} is no account name") from error
    keys = tuple(" ".join(line.split(None, 2)[:2]) for line in entry["keys"])
    return Account(checked, entry["is_enabled"], frozenset(entry["groups"]), keys)


def _damaged(reason: str) -> RejectedError:
    return RejectedError("directory.damaged", f"the file of accounts is damaged: {reason}")


def _unreachable(path: Path, reason: str) -> TransientError:
    return TransientError(
        "directory.unreachable",
        "the directory of accounts cannot be read",
        hint="repair the file, or restore it from a backup",
        path=str(path),
        reason=reason,
    )
