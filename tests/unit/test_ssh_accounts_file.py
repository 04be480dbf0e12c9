"""The TOML file of accounts: edited safely, and refused as a whole when damaged."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import asyncssh
import pytest

from hgfleet.adapters import toml_directory_edit as edit
from hgfleet.adapters.ssh_keys import parse_public_key
from hgfleet.adapters.toml_directory import TomlDirectory
from hgfleet.errors import ConfigError, RejectedError, TransientError
from hgfleet.model.ids import AccountName

ALICE = AccountName("alice")


def new_key() -> str:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip() + " a comment"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "accounts.toml"
    edit.create_directory_file(path)
    return path


def test_keys_are_added_and_taken_away_by_line_or_fingerprint(path: Path) -> None:
    first, second = new_key(), new_key()
    edit.add_account(path, ALICE, keys=[first])
    added = edit.add_key(path, ALICE, second)
    account = TomlDirectory(path).account(ALICE)
    assert account is not None
    assert account.keys == (parse_public_key(first).text, parse_public_key(second).text)
    edit.remove_key(path, ALICE, added.fingerprint)
    edit.remove_key(path, ALICE, first)
    account = TomlDirectory(path).account(ALICE)
    assert account is not None
    assert account.keys == ()


def test_what_cannot_be_done_is_said_with_its_code(path: Path) -> None:
    key = new_key()
    edit.add_account(path, ALICE, keys=[key])
    cases = {
        "account.exists": lambda: edit.add_account(path, ALICE),
        "account.unknown": lambda: edit.set_enabled(path, "bob", is_enabled=False),
        "account.bad-name": lambda: edit.add_account(path, "-oProxyCommand=id"),
        "group.bad-name": lambda: edit.set_groups(path, ALICE, ["a b"]),
        "key.exists": lambda: edit.add_key(path, ALICE, key),
        "key.unknown": lambda: edit.remove_key(path, ALICE, new_key()),
        "key.bad": lambda: edit.add_key(path, ALICE, "nonsense"),
    }
    before = path.read_bytes()
    for code, change in cases.items():
        with pytest.raises(RejectedError) as caught:
            change()
        assert caught.value.code == code
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 !!!!",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP",
        'command="id" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDpmWmJXrIq5DJtm7nTdqYVg3sYzC0hCqOCLcN2cGG3K',
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIDpmWmJXrIq5DJtm7nTdqYVg3sYzC0hCqOCLcN2cGG3K",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDpmWmJXrIq5DJtm7nTdqYVg3sYzC0hCqOCLcN2cGG3K\nssh-ed25519 AAAA",
        "ssh-ed25519 " + "A" * 10_000,
    ],
)
def test_a_line_that_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_public_key(line)
    assert caught.value.code == "key.bad"


def test_a_short_rsa_key_is_refused() -> None:
    line = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key().decode()
    with pytest.raises(RejectedError, match="2048"):
        parse_public_key(line)


@pytest.mark.parametrize(
    "content",
    [
        "[accounts.alice\n",
        "accounts = 3\n",
        "[other]\n",
        "[accounts.alice]\nis_enabled = 1\ngroups = []\nkeys = []\n",
        "[accounts.alice]\nis_enabled = true\ngroups = [1]\nkeys = []\n",
        '[accounts."a/b"]\nis_enabled = true\ngroups = []\nkeys = []\n',
        "[accounts.alice]\nis_enabled = true\n",
        "\x00",
    ],
)
def test_a_damaged_file_is_an_error_for_everybody_and_is_not_overwritten(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(TransientError):
        TomlDirectory(path).account(AccountName("bob"))
    with pytest.raises(ConfigError):
        edit.add_account(path, "carol")
    assert path.read_text() == content


def test_comments_and_order_of_a_file_edited_by_hand_survive(path: Path) -> None:
    text = '# ours\n[accounts.zoe] # the boss\nis_enabled = true\ngroups = ["a"]\nkeys = []\n'
    path.write_text(text)
    edit.add_account(path, ALICE)
    after = path.read_text()
    assert after.startswith(text)
    assert TomlDirectory(path).account(ALICE) is not None


def test_the_file_is_private(path: Path) -> None:
    edit.add_account(path, ALICE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_writers_lose_nothing(path: Path) -> None:
    names = [f"user{number}" for number in range(12)]
    threads = [threading.Thread(target=edit.add_account, args=(path, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [account.name for account in TomlDirectory(path).accounts()] == sorted(names)


def test_a_use_is_recorded_once_a_day_and_gives_way_to_a_writer(path: Path) -> None:
    edit.add_account(path, ALICE)
    edit.add_account(path, "bob")
    directory = TomlDirectory(path)
    directory.touch(ALICE)
    assert path.read_text().count("last_used_on") == 1
    lock = os.open(path.with_name(".accounts.toml.lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    directory.touch(AccountName("bob"))
    os.close(lock)
    assert path.read_text().count("last_used_on") == 1
