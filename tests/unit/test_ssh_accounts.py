"""Accounts as the SSH front asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hgfleet.adapters.toml_directory import TomlDirectory
from hgfleet.adapters.toml_directory_edit import add_account, create_directory_file
from hgfleet.errors import TransientError
from hgfleet.ports.directory import Account
from hgfleet.ssh.accounts import Accounts


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


def test_a_directory_that_cannot_be_read_is_an_error_and_not_missing(
    path: Path, executor: ThreadPoolExecutor
) -> None:
    accounts = Accounts(TomlDirectory(path), executor)
    path.unlink()
    with pytest.raises(TransientError) as caught:
        find(accounts, "alice")
    assert caught.value.code == "directory.unreachable"


def test_what_is_no_account_name_is_nobody(path: Path, executor: ThreadPoolExecutor) -> None:
    accounts = Accounts(TomlDirectory(path), executor)
    for name in ("", "-oProxyCommand=id", "a/b", "a\nb", "x" * 10_000, "bob"):
        assert find(accounts, name) is None
    assert find(accounts, "alice") is not None
