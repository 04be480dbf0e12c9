"""The seq file grows by a line per transaction, shrinks with one that is undone, and restarts when long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hgfleet.errors import PoisonError
from hgfleet.hgext import binding, seqfile, steps
from hgfleet.hgext.seqfile import SeqState
from hgfleet.runtime.faults import Faults
from tests.support.local_copies import Fleet, commit, store_of


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet.make(tmp_path)
    commit(fleet.repo, "one")
    return fleet


def path_of(fleet: Fleet) -> Path:
    return store_of(fleet.primary) / seqfile.NAME


def read(fleet: Fleet, **how: bool) -> SeqState | None:
    return seqfile.read(fleet.repo.root.decode(), **how)


def test_each_change_adds_one_line_to_the_same_file(fleet: Fleet) -> None:
    before, inode = path_of(fleet).read_bytes(), path_of(fleet).stat().st_ino
    commit(fleet.repo, "two")
    after = path_of(fleet).read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 1
    assert path_of(fleet).stat().st_ino == inode
    assert read(fleet) == seqfile.parse(after[len(before) :])


def test_a_long_file_is_begun_anew(fleet: Fleet) -> None:
    path_of(fleet).write_bytes(path_of(fleet).read_bytes() * (seqfile.MOST_BYTES // 300))
    commit(fleet.repo, "two")
    assert path_of(fleet).read_bytes() == seqfile.format_state(fleet.state)
    fleet.check_replicas()


def test_a_file_with_another_name_is_replaced(fleet: Fleet, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    os.link(path_of(fleet), backup)
    before = backup.read_bytes()
    commit(fleet.repo, "two")
    assert backup.read_bytes() == before
    assert path_of(fleet).read_bytes() == seqfile.format_state(fleet.state)


@pytest.mark.parametrize("is_long", [False, True])
def test_what_fails_at_the_last_step_takes_its_line_back(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    if is_long:
        path_of(fleet).write_bytes(path_of(fleet).read_bytes() * (seqfile.MOST_BYTES // 300))
    before, state = path_of(fleet).read_bytes(), fleet.state
    (tmp_path / "last").write_text("enospc")

    def change() -> None:
        with binding.of(fleet.repo).applying(), fleet.repo.lock(), fleet.repo.transaction(b"test") as tr:
            monkeypatch.setattr(tr, "_writeundo", lambda: Faults(tmp_path).reach("last"))
            steps.commit_state(tr, state.advanced(seq=state.seq + 1))

    with pytest.raises(OSError, match="No space"):
        change()
    assert path_of(fleet).read_bytes() == before
    commit(fleet.repo, "two")
    fleet.check_replicas()


def test_a_file_of_many_lines_from_before_is_read_and_continued(fleet: Fleet) -> None:
    state = fleet.state
    line = seqfile.format_state(state)
    path_of(fleet).write_bytes(line.replace(b", ", b",\n ").replace(b"{", b"{\n ", 1)[:-2] + b"\n}\n")
    assert read(fleet, is_locked=True) == state
    commit(fleet.repo, "two")
    assert fleet.state.seq == state.seq + 1


def test_a_line_without_its_end_is_passed_over_unless_nobody_is_writing(fleet: Fleet) -> None:
    state = fleet.state
    with path_of(fleet).open("ab") as file:
        file.write(seqfile.format_state(state.advanced(seq=state.seq + 1))[:-2])
    assert read(fleet) == state
    with pytest.raises(PoisonError, match="damaged"):
        read(fleet, is_locked=True)
