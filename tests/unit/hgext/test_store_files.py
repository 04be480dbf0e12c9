"""Files of the store are opened in fewer steps, and protected as before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hgfleet.hgext import binding
from hgfleet.hgext.branch_cache import MOST_UNWRITTEN
from hgfleet.hgext.store_files import StoreVfs
from tests.support.local_copies import Fleet, commit, store_of

_RECORD_BYTES = 8


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet.make(tmp_path)
    commit(fleet.repo, "one")
    return fleet


@pytest.mark.parametrize("mode", [b"ab", b"r+b"])
def test_what_has_another_name_is_copied_before_it_is_written_to(
    fleet: Fleet, tmp_path: Path, mode: bytes
) -> None:
    path, other = store_of(fleet.primary) / "00changelog.i", tmp_path / "other"
    os.link(path, other)
    before = other.read_bytes()
    with fleet.repo.svfs(b"00changelog.i", mode, checkambig=True) as file:
        file.seek(0, os.SEEK_END)
        file.write(b"more")
    assert other.read_bytes() == before
    assert path.read_bytes() == before + b"more"


def test_a_transaction_without_backups_makes_no_list_of_them(fleet: Fleet) -> None:
    assert isinstance(fleet.repo.store.rawvfs, StoreVfs)
    path = store_of(fleet.primary) / "journal.backupfiles"
    with binding.of(fleet.repo).applying(), fleet.repo.lock(), fleet.repo.transaction(b"test") as tr:
        assert path.with_name("journal").exists()
        assert not path.exists()
        tr.addbackup(b"requires")
        assert path.read_bytes().startswith(b"2\n")
        assert b"requires" in path.read_bytes()
    assert not path.exists()


def test_a_store_with_a_mode_of_its_own_is_written_to_like_any_other(fleet: Fleet) -> None:
    store = store_of(fleet.primary)
    store.chmod(0o770)
    fleet.primary.forget()  # it is opened anew with the mode
    commit(fleet.repo, "shared")
    assert 0o660 in {path.stat().st_mode & 0o777 for path in store.rglob("*.i")}


def test_a_mirror_writes_the_branch_cache_in_batches(fleet: Fleet) -> None:
    for number in range(2 * MOST_UNWRITTEN):
        commit(fleet.repo, f"more {number}")
    mirror = fleet.replica()
    fleet.replay(mirror, is_each_alone=True)
    path = store_of(mirror).parent / "cache" / "rbc-revs-v2"
    missing = len(mirror.repo) - path.stat().st_size // _RECORD_BYTES
    assert 0 < missing < MOST_UNWRITTEN
    assert [mirror.repo[rev].branch() for rev in mirror.repo] == [b"default"] * len(mirror.repo)
