"""The files of views: what is in force after any step, and after any step that did not happen."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters import view_files
from hgfleet.errors import InvariantError, TransientError
from hgfleet.model.ids import Seq
from hgfleet.model.settings import RepoSettings
from hgfleet.model.view import View, format_view, parse_view

VIEW = View(
    seq=Seq(3),
    changelog_length=7,
    obsstore_bytes=100,
    pushlog_bytes=64,
    phaseroots="3.phaseroots",
    bookmarks="",
    settings=RepoSettings(("developers",), False, "a description"),
)


@pytest.fixture
def hg(tmp_path: Path) -> Path:
    (tmp_path / view_files.VIEWS).mkdir()
    return tmp_path


def make(hg: Path, seq: int) -> View:
    view = replace(VIEW, seq=Seq(seq), phaseroots=f"{seq}.phaseroots")
    (hg / view_files.VIEWS / view.phaseroots).write_text(f"roots of {seq}")
    view_files.write_view(hg, view)
    return view


def test_a_view_survives_its_file_form() -> None:
    assert parse_view(format_view(VIEW)) == VIEW


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        format_view(VIEW).replace(b"3.phaseroots", b"../phaseroots"),
        format_view(VIEW).replace(b"3.phaseroots", b"/etc/passwd"),
        format_view(VIEW).replace(b": 7", b": -7"),
        format_view(VIEW).replace(b": 7", b": true"),
        format_view(VIEW).replace(b'"writers"', b'"others"'),
    ],
)
def test_a_damaged_view_is_not_believed(data: bytes) -> None:
    with pytest.raises(InvariantError):
        parse_view(data)


def test_nothing_is_exposed_before_the_first_time(hg: Path) -> None:
    assert view_files.read_exposed(hg) is None
    assert view_files.load_exposed(hg) is None
    assert view_files.read_exposed(hg / "nothing") is None
    assert view_files.view_seqs(hg / "nothing") == []


def test_what_is_exposed_never_goes_backwards(hg: Path) -> None:
    for seq in (1, 2, 3):
        make(hg, seq)
    assert view_files.expose(hg, Seq(2)) == 2
    assert view_files.expose(hg, Seq(1)) == 2
    assert view_files.expose(hg, Seq(2)) == 2
    assert view_files.expose(hg, Seq(3)) == 3
    loaded = view_files.load_exposed(hg)
    assert loaded is not None
    assert (loaded[0].seq, *loaded[1:]) == (3, b"roots of 3", None)


def test_a_seq_without_a_view_cannot_be_exposed(hg: Path) -> None:
    view = make(hg, 1)
    view_files.expose(hg, Seq(1))
    assert view_files.expose(hg, Seq(2)) is None
    assert view_files.read_exposed(hg) == view


def test_a_seq_is_viewed_before_and_after_it_is_exposed_and_not_when_another_is(hg: Path) -> None:
    for seq in (1, 2):
        assert not view_files.is_viewed(hg, Seq(seq))
        make(hg, seq)
        assert view_files.is_viewed(hg, Seq(seq))
        view_files.expose(hg, Seq(seq))
        assert view_files.is_viewed(hg, Seq(seq))
    assert not view_files.is_viewed(hg, Seq(1))
    (hg / view_files.VIEWS / "2.phaseroots").unlink()
    assert not view_files.is_viewed(hg, Seq(2))


def test_pruning_spares_the_view_in_force_and_later_ones(hg: Path) -> None:
    for seq in (1, 2, 3, 10):
        make(hg, seq)
    view_files.expose(hg, Seq(2))
    assert view_files.prune(hg, Seq(10)) == 2
    assert view_files.view_seqs(hg) == [10]
    assert {path.name for path in (hg / view_files.VIEWS).iterdir()} == {
        "2.phaseroots",
        "10.json",
        "10.phaseroots",
    }
    assert view_files.prune(hg, Seq(10)) == 0


def test_a_reader_that_finds_a_link_pruned_takes_the_newer_view(
    hg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seq in (1, 2):
        make(hg, seq)
    view_files.expose(hg, Seq(1))
    read = view_files.read_exposed

    def overtaken(directory: Path) -> View | None:
        monkeypatch.setattr(view_files, "read_exposed", read)
        seen = read(directory)
        view_files.expose(directory, Seq(2))
        view_files.prune(directory, Seq(2))
        return seen

    monkeypatch.setattr(view_files, "read_exposed", overtaken)
    loaded = view_files.load_exposed(hg)
    assert loaded is not None
    assert (loaded[0].seq, loaded[1]) == (2, b"roots of 2")


def test_a_view_that_a_power_cut_took_part_of_counts_as_missing(hg: Path) -> None:
    view = make(hg, 1)
    view_files.expose(hg, Seq(1))
    (hg / view_files.VIEWS / view.phaseroots).unlink()
    assert not view_files.is_viewed(hg, Seq(1))
    with pytest.raises(TransientError):
        view_files.load_exposed(hg)
    make(hg, 1)
    assert view_files.load_exposed(hg) == (view, b"roots of 1", None)
    (hg / view_files.EXPOSED).write_bytes(b"")
    assert view_files.read_exposed(hg) is None
    assert view_files.expose(hg, Seq(1)) == 1


def test_a_view_that_is_made_again_never_changes_the_file_that_may_be_in_force_by_now(hg: Path) -> None:
    view = make(hg, 3)
    path = hg / view_files.VIEWS / "3.json"
    with path.open("rb") as being_exposed:
        make(hg, 3)
        assert parse_view(being_exposed.read()) == view
        assert path.stat().st_ino != os.fstat(being_exposed.fileno()).st_ino
    assert view_files.read_view(hg, Seq(3)) == view
    assert view_files.view_seqs(hg) == [3]


def test_a_view_that_cannot_be_made_again_leaves_the_one_that_was_there(
    hg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = make(hg, 3)

    def fail(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:5])
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as full:
        full.setattr(view_files, "_write_all", fail)
        with pytest.raises(OSError, match="no space"):
            view_files.write_view(hg, view)
    assert view_files.read_view(hg, Seq(3)) == view
    assert sorted(path.name for path in (hg / view_files.VIEWS).iterdir()) == ["3.json", "3.phaseroots"]
