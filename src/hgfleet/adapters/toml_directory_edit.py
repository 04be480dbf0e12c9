"""Changes to the TOML directory of accounts: what `hgfleet user …` does.

Promises: every change is checked first, made under a lock and put in place by rename after an fsync, mode
0600; comments and order of a file edited by hand survive. A damaged file is refused, never overwritten.
Does not: delete accounts — one that may no longer log in is disabled, and its name stays taken.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import tomlkit

from hgfleet.adapters.ssh_keys import PublicKey, parse_public_key
from hgfleet.adapters.toml_directory import parse_accounts
from hgfleet.errors import ConfigError, RejectedError, TransientError
from hgfleet.model.ids import AccountName, parse_account_name
from hgfleet.runtime import clock

LOCK_SECONDS = 10.0
_POLL_SECONDS = 0.02
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HEADER = "# Accounts of this fleet, managed by `hgfleet user`.\n"

_Entry = Any  # a tomlkit table


def create_directory_file(path: Path) -> None:
    """Make an empty directory of accounts unless there is one."""
    with _locked(path, LOCK_SECONDS):
        if not path.exists():
            _replace(path, _HEADER)


def add_account(path: Path, name: str, *, groups: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
    """Add an enabled account.

    Raises RejectedError `account.exists`, `account.bad-name`, `key.bad`, `group.bad-name`.
    """
    checked, lines = parse_account_name(name), [parse_public_key(key).line for key in keys]
    fields = {"is_enabled": True, "groups": _checked_groups(groups), "keys": lines}
    with _editing(path) as document:
        accounts = document.setdefault("accounts", tomlkit.table(is_super_table=True))
        if checked in accounts:
            raise RejectedError("account.exists", "there is an account of this name", account=checked)
        entry = tomlkit.table()
        for field, value in fields.items():
            entry.add(field, tomlkit.item(value))
        accounts.add(checked, entry)


def set_enabled(path: Path, name: str, *, is_enabled: bool) -> None:
    """Enable or disable an account. Raises RejectedError `account.unknown`."""
    _change(path, name, lambda entry: entry.update({"is_enabled": is_enabled}))


def set_groups(path: Path, name: str, groups: Sequence[str]) -> None:
    """Replace an account's groups. Raises RejectedError `account.unknown`, `group.bad-name`."""
    checked = _checked_groups(groups)
    _change(path, name, lambda entry: entry.update({"groups": checked}))


def add_key(path: Path, name: str, line: str) -> PublicKey:
    """Give an account one more key and return it.

    Raises RejectedError `account.unknown`, `key.bad`, `key.exists`.
    """
    key = parse_public_key(line)

    def append(entry: _Entry) -> None:
        if any(_is_same_key(known, key.text) for known in entry["keys"]):
            raise RejectedError("key.exists", "the account has this key already", key=key.fingerprint)
        entry["keys"].append(key.line)

    _change(path, name, append)
    return key


def remove_key(path: Path, name: str, which: str) -> None:
    """Take a key away, named by its line or its SHA256 fingerprint. Raises RejectedError `key.unknown`."""
    wanted = which.strip() if which.startswith("SHA256:") else parse_public_key(which).fingerprint

    def remove(entry: _Entry) -> None:
        rest = [line for line in entry["keys"] if parse_public_key(line).fingerprint != wanted]
        if len(rest) == len(entry["keys"]):
            raise RejectedError("key.unknown", "the account has no such key", key=wanted)
        entry["keys"] = rest

    _change(path, name, remove)


def record_use(path: Path, name: AccountName, day: date) -> None:
    """Note the day of an account's last login; gives way at once when somebody else is writing."""

    def note(entry: _Entry) -> None:
        if entry.get("last_used_on") != day:
            entry["last_used_on"] = day

    _change(path, name, note, lock_seconds=0.0)


def _checked_groups(groups: Sequence[str]) -> list[str]:
    for group in groups:
        if _GROUP.fullmatch(group) is None:
            raise RejectedError(
                "group.bad-name", "bad group name", hint="use letters, digits, '.', '_' and '-'", group=group
            )
    return sorted(set(groups))


def _is_same_key(line: str, text: str) -> bool:
    return line.split(None, 2)[:2] == text.split(" ")


def _change(
    path: Path, name: str, change: Callable[[_Entry], None], *, lock_seconds: float = LOCK_SECONDS
) -> None:
    with _editing(path, lock_seconds) as document:
        entry = document.get("accounts", {}).get(parse_account_name(name))
        if entry is None:
            raise RejectedError("account.unknown", "there is no such account", account=name)
        change(entry)


@contextmanager
def _editing(path: Path, lock_seconds: float = LOCK_SECONDS) -> Iterator[Any]:
    """Yield the parsed document; written back if it changed and nothing was raised."""
    with _locked(path, lock_seconds):
        try:
            before = path.read_bytes()
            parse_accounts(before)
        except (OSError, RejectedError) as error:
            raise ConfigError(
                "directory.damaged", "the file of accounts cannot be used", path=str(path), reason=str(error)
            ) from error
        document = tomlkit.parse(before.decode())
        yield document
        after = tomlkit.dumps(document)
        if after.encode() != before:
            parse_accounts(after.encode())
            _replace(path, after)


@contextmanager
def _locked(path: Path, seconds: float) -> Iterator[None]:
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take_lock(descriptor, seconds)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, seconds: float) -> None:
    ends_at = clock.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if clock.monotonic() >= ends_at:
                raise TransientError("directory.busy", "another command is changing the accounts") from error
            clock.sleep(_POLL_SECONDS)
        else:
            return


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
