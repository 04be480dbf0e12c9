"""The store's list of files grows in place, and shrinks again with a transaction that is undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hgfleet.hgext import binding
from hgfleet.hgext.file_list import AppendedList
from tests.support.local_copies import Fleet, commit, store_of


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet.make(tmp_path)
    commit(fleet.repo, "one")
    return fleet


def add(repo: Any, name: bytes, failure: Exception | None = None) -> None:
    """Add a name to the list in a transaction of its own, which fails at its end if told to."""

    def fail(_tr: Any) -> None:
        if failure is not None:
            raise failure

    with binding.of(repo).applying(), repo.lock(), repo.transaction(b"test") as tr:
        repo.store.fncache.add(name)
        tr.addfinalize(b"zz-test", fail)


def test_names_are_appended_to_the_same_file(fleet: Fleet) -> None:
    path = store_of(fleet.primary) / "fncache"
    before, inode = path.read_bytes(), path.stat().st_ino
    assert isinstance(fleet.repo.store.fncache, AppendedList)
    add(fleet.repo, b"data/new.i")
    assert path.read_bytes() == before + b"data/new.i\n"
    assert path.stat().st_ino == inode
    assert b"data/new.i" in fleet.repo.store.fncache


def test_what_a_failed_transaction_added_is_cut_off(fleet: Fleet) -> None:
    path = store_of(fleet.primary) / "fncache"
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        add(fleet.repo, b"data/new.i", RuntimeError("the disk is full"))
    assert path.read_bytes() == before
    assert b"data/new.i" not in fleet.repo.store.fncache
    commit(fleet.repo, "two")
    fleet.check_replicas()


def test_a_list_that_lost_names_is_written_anew(fleet: Fleet) -> None:
    path = store_of(fleet.primary) / "fncache"
    add(fleet.repo, b"data/new.i")
    with binding.of(fleet.repo).applying(), fleet.repo.lock(), fleet.repo.transaction(b"test"):
        fleet.repo.store.fncache.remove(b"data/new.i")
    assert b"data/new.i" not in path.read_bytes().splitlines()
