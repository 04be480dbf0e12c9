"""The cache of accounts over an outage: bounded, private, and never an answer of its own invention."""

from __future__ import annotations

import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters import cached_directory
from hgfleet.adapters.account_cache import AccountCache
from hgfleet.adapters.cached_directory import CachedDirectory, CacheLimits
from hgfleet.adapters.directory_status import DirectoryStatus, read_directory_status, write_directory_status
from hgfleet.errors import TransientError
from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account
from hgfleet.runtime import clock

ALICE, BOB = AccountName("alice"), AccountName("bob")
ACCOUNT = Account(ALICE, True, frozenset({"developers"}), ("ssh-ed25519 AAAA",))


class Directory:
    """A directory that the test breaks and mends."""

    def __init__(self) -> None:
        self.accounts = {ALICE: ACCOUNT}
        self.error: TransientError | None = None
        self.asked = 0

    def account(self, name: AccountName) -> Account | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.accounts.get(name)

    def touch(self, name: AccountName) -> None:
        """Note nothing."""

    def break_down(self, code: str = "directory.unreachable") -> None:
        self.error = TransientError(code, "it is broken")


class Clock:
    """The time, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(clock, "boottime", lambda: self.seconds)
        monkeypatch.setattr(clock, "now", lambda: 1_700_000_000 + self.seconds)


@pytest.fixture
def time_(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> AccountCache:
    return AccountCache(tmp_path / "cache.sqlite")


def refused(directory: CachedDirectory, name: AccountName = ALICE) -> str:
    with pytest.raises(TransientError) as caught:
        directory.account(name)
    return caught.value.code


def test_while_the_directory_answers_it_is_asked_every_time() -> None:
    inner = Directory()
    directory = CachedDirectory(inner)
    assert directory.account(ALICE) == ACCOUNT
    inner.accounts[ALICE] = replace(ACCOUNT, is_enabled=False)
    found = directory.account(ALICE)
    assert found is not None
    assert not found.is_enabled
    assert inner.asked == 2


def test_an_answer_carries_over_an_outage_up_to_its_bound(time_: Clock, cache: AccountCache) -> None:
    inner = Directory()
    directory = CachedDirectory(inner, CacheLimits(outage_seconds=600), cache)
    directory.account(ALICE)
    inner.break_down()
    time_.seconds += 599
    assert directory.account(ALICE) == ACCOUNT
    time_.seconds += 1
    assert refused(directory) == "directory.unreachable"


def test_an_answer_given_from_memory_does_not_grow_younger(time_: Clock, cache: AccountCache) -> None:
    inner = Directory()
    directory = CachedDirectory(inner, CacheLimits(outage_seconds=600), cache)
    directory.account(ALICE)
    inner.break_down()
    for _ in range(5):
        time_.seconds += 110
        directory.account(ALICE)
    time_.seconds += 110
    refused(directory)


def test_an_unchanged_answer_on_disk_is_a_little_older_and_never_younger(
    time_: Clock, cache: AccountCache
) -> None:
    inner = Directory()
    directory = CachedDirectory(inner, CacheLimits(outage_seconds=600), cache)
    for _ in range(60):
        directory.account(ALICE)
        time_.seconds += 10
    found = cache.recall(ALICE)
    assert found is not None
    age = clock.now() - found[0]
    assert 10 <= age <= 10 + 600 * 0.1 + 10


def test_no_such_account_is_never_invented_and_never_remembered(cache: AccountCache) -> None:
    inner = Directory()
    directory = CachedDirectory(inner, cache=cache)
    assert directory.account(BOB) is None
    inner.break_down()
    assert refused(directory, BOB) == "directory.unreachable"


def test_an_account_that_was_deleted_is_forgotten_on_disk_too(cache: AccountCache) -> None:
    inner = Directory()
    directory = CachedDirectory(inner, cache=cache)
    directory.account(ALICE)
    del inner.accounts[ALICE]
    assert directory.account(ALICE) is None
    inner.break_down()
    refused(directory)
    assert cache.recall(ALICE) is None
    refused(CachedDirectory(inner, cache=cache))


def test_an_account_deleted_while_this_process_did_not_know_it_is_forgotten(cache: AccountCache) -> None:
    inner = Directory()
    CachedDirectory(inner, cache=cache).account(ALICE)
    del inner.accounts[ALICE]
    assert CachedDirectory(inner, cache=cache).account(ALICE) is None
    assert cache.recall(ALICE) is None


def test_only_an_unreachable_directory_is_answered_for() -> None:
    inner = Directory()
    directory = CachedDirectory(inner)
    directory.account(ALICE)
    inner.break_down("directory.ambiguous")
    assert refused(directory) == "directory.ambiguous"


def test_a_directory_that_hangs_is_given_up_and_answered_for() -> None:
    release = threading.Event()

    class Hanging(Directory):
        def account(self, name: AccountName) -> Account | None:
            found = super().account(name)
            if self.asked > 1:
                release.wait()
            return found

    directory = CachedDirectory(Hanging(), CacheLimits(lookup_seconds=0.05))
    try:
        assert directory.account(ALICE) == ACCOUNT
        assert directory.account(ALICE) == ACCOUNT
        assert refused(directory, BOB) == "directory.unreachable"
    finally:
        release.set()


def test_a_restart_knows_what_was_known_and_a_clock_set_back_makes_nothing_younger(
    time_: Clock, cache: AccountCache
) -> None:
    inner = Directory()
    CachedDirectory(inner, cache=cache).account(ALICE)
    inner.break_down()
    assert CachedDirectory(inner, cache=cache).account(ALICE) == ACCOUNT
    time_.seconds -= 100
    refused(CachedDirectory(inner, cache=cache))


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    AccountCache(path).store(ACCOUNT, 1.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    AccountCache(path).store(ACCOUNT, 1.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "cache.sqlite").symlink_to(tmp_path / "elsewhere")
    cache = AccountCache(tmp_path / "cache.sqlite")
    cache.store(ACCOUNT, 1.0)
    assert cache.recall(ALICE) is None
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_damaged_file_answers_nothing_and_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"damaged" * 1000)
    inner = Directory()
    directory = CachedDirectory(inner, cache=AccountCache(path))
    assert directory.account(ALICE) == ACCOUNT
    directory.account(ALICE)
    again = AccountCache(path)
    CachedDirectory(inner, cache=again).account(ALICE)
    assert again.recall(ALICE) is not None


def test_a_disk_that_cannot_be_written_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inner = Directory()
    directory = CachedDirectory(inner, cache=AccountCache(tmp_path / "file" / "cache.sqlite"))
    assert directory.account(ALICE) == ACCOUNT
    inner.break_down()
    assert directory.account(ALICE) == ACCOUNT


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_directory, "MAX_REMEMBERED", 2)
    inner = Directory()
    names = [AccountName(name) for name in ("a", "b", "c")]
    inner.accounts = {name: replace(ACCOUNT, name=name) for name in names}
    directory = CachedDirectory(inner)
    for name in names:
        directory.account(name)
    inner.break_down()
    refused(directory, names[0])
    assert directory.account(names[2]) is not None


def test_an_outage_is_told_when_it_begins_now_and_then_and_when_it_ends(time_: Clock, tmp_path: Path) -> None:
    path = tmp_path / "directory.json"
    inner = Directory()
    directory = CachedDirectory(inner, tell=lambda status: write_directory_status(path, status))
    assert read_directory_status(path) == {"is_reachable": True, "answered": 0, "refused": 0}
    directory.account(ALICE)
    inner.break_down()
    directory.account(ALICE)
    assert read_directory_status(path) == {"is_reachable": False, "answered": 1, "refused": 0}
    refused(directory, BOB)
    assert read_directory_status(path) == {"is_reachable": False, "answered": 1, "refused": 0}
    time_.seconds += 5
    directory.account(ALICE)
    assert read_directory_status(path) == {"is_reachable": False, "answered": 2, "refused": 1}
    inner.error = None
    directory.account(ALICE)
    assert read_directory_status(path) == {"is_reachable": True, "answered": 2, "refused": 1}


@pytest.mark.parametrize("content", ["", "{}x", "[]", '{"other": 1}'])
def test_a_status_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "directory.json"
    path.write_text(content)
    assert read_directory_status(path) is None
    assert read_directory_status(tmp_path / "absent") is None


def test_a_status_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    write_directory_status(tmp_path / "absent" / "directory.json", DirectoryStatus())
