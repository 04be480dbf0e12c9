"""What a mirror serves changes at once, with the seq it was exposed at, under readers that never wait."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.errors import TransientError
from hgfleet.model.ids import RepoId, RepoPath, Seq

A, B = RepoId("a" * 32), RepoId("b" * 32)


def test_paths_and_their_seq_change_together_and_survive_a_restart(tmp_path: Path) -> None:
    catalogue = MirrorCatalogue(tmp_path / "catalogue.sqlite")
    assert (catalogue.exposed_seq(), catalogue.paths()) == (0, {})
    catalogue.expose([], {RepoPath("team/app"): A, RepoPath("lib"): B}, Seq(2))
    catalogue.expose([RepoPath("team/app")], {RepoPath("team/new"): A}, Seq(3))
    catalogue.close()
    again = MirrorCatalogue(tmp_path / "catalogue.sqlite")
    assert again.exposed_seq() == 3
    assert again.paths() == {"team/new": A, "lib": B}
    again.close()


def test_replacing_everything_leaves_exactly_what_was_asked_for(tmp_path: Path) -> None:
    catalogue = MirrorCatalogue(tmp_path / "catalogue.sqlite")
    catalogue.replace({RepoPath("one"): A, RepoPath("two"): B}, Seq(1))
    catalogue.replace({RepoPath("two"): A}, Seq(2))
    assert (catalogue.exposed_seq(), catalogue.paths()) == (2, {"two": A})
    catalogue.close()


def test_a_reader_neither_waits_for_the_writer_nor_holds_it_up(tmp_path: Path) -> None:
    catalogue = MirrorCatalogue(tmp_path / "catalogue.sqlite")
    catalogue.expose([], {RepoPath("one"): A}, Seq(1))
    reader = sqlite3.connect(tmp_path / "catalogue.sqlite", timeout=0, isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT path FROM paths").fetchall()
    catalogue.expose([RepoPath("one")], {RepoPath("two"): A}, Seq(2))
    assert reader.execute("SELECT path FROM paths").fetchall() == before == [("one",)]
    reader.execute("COMMIT")
    assert reader.execute("SELECT path FROM paths").fetchall() == [("two",)]
    reader.close()
    catalogue.close()


def test_parked_repositories_are_named_with_the_reason_until_they_are_unparked(tmp_path: Path) -> None:
    catalogue = MirrorCatalogue(tmp_path / "catalogue.sqlite")
    catalogue.park(A, "damaged")
    catalogue.park(A, "still damaged")
    catalogue.park(B, "gap")
    catalogue.unpark(B)
    assert catalogue.parked() == {A: "still damaged"}
    catalogue.close()


def test_a_file_that_cannot_be_opened_is_said_as_such(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="catalogue"):
        MirrorCatalogue(tmp_path / "missing" / "catalogue.sqlite")
