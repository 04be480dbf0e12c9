"""Accounts over an outage of the directory: remembered for a bounded time, never mistaken for missing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hgfleet.adapters.toml_directory import TomlDirectory
from hgfleet.adapters.toml_directory_edit import add_account, create_directory_file, set_enabled
from hgfleet.errors import TransientError
from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account
from hgfleet.ssh.accounts import AccountLimits, Accounts


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    create_directory_file(path)
    add_account(path, "alice", groups=["developers"])
    return path


def find(accounts: Accounts, name: str) -> Account | None:
    return asyncio.run(accounts.find(name))


def test_an_account_seen_before_an_outage_is_remembered(path: Path, executor: ThreadPoolExecutor) -> None:
    accounts = Accounts(TomlDirectory(path), executor, AccountLimits())
    seen = find(accounts, "alice")
    assert seen is not None
    path.unlink()
    assert find(accounts, "alice") == seen


def test_one_that_was_not_seen_is_an_error_and_not_missing(path: Path, executor: ThreadPoolExecutor) -> None:
    accounts = Accounts(TomlDirectory(path), executor, AccountLimits())
    path.unlink()
    with pytest.raises(TransientError) as caught:
        find(accounts, "alice")
    assert caught.value.code == "directory.unreachable"


def test_memory_ends_with_its_bound(path: Path, executor: ThreadPoolExecutor) -> None:
    accounts = Accounts(TomlDirectory(path), executor, AccountLimits(outage_seconds=0.0))
    find(accounts, "alice")
    path.unlink()
    with pytest.raises(TransientError):
        find(accounts, "alice")


def test_a_revocation_is_remembered_too(path: Path, executor: ThreadPoolExecutor) -> None:
    accounts = Accounts(TomlDirectory(path), executor, AccountLimits())
    find(accounts, "alice")
    set_enabled(path, "alice", is_enabled=False)
    find(accounts, "alice")
    path.unlink()
    remembered = find(accounts, "alice")
    assert remembered is not None
    assert not remembered.is_enabled


def test_what_is_no_account_name_is_nobody(path: Path, executor: ThreadPoolExecutor) -> None:
    accounts = Accounts(TomlDirectory(path), executor, AccountLimits())
    for name in ("", "-oProxyCommand=id", "a/b", "a\nb", "x" * 10_000, "bob"):
        assert find(accounts, name) is None


class HangingDirectory:
    """A directory whose answer does not come before the test says so."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def account(self, name: AccountName) -> Account | None:
        self.release.wait()
        return None

    def touch(self, name: AccountName) -> None:
        """Note nothing."""


def test_a_directory_that_does_not_answer_is_an_error_in_bounded_time(executor: ThreadPoolExecutor) -> None:
    directory = HangingDirectory()
    accounts = Accounts(directory, executor, AccountLimits(lookup_seconds=0.05))
    try:
        with pytest.raises(TransientError):
            find(accounts, "alice")
    finally:
        directory.release.set()
