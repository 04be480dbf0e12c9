"""The repository that is streamed is copied as files where it may be, and never has more than it shall."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mercurial.repo import factory

from hgfleet.adapters import view_files
from hgfleet.hgext import scratch_copy
from hgfleet.hgext.bundle_files import BundleOptions, make_bundle_files
from hgfleet.hgext.scratch_copy import make_scratch_copy
from hgfleet.model.bundle_manifest import BundleType
from tests.support.bundle_reading import apply_bundle
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import Exposures, build, open_ui, write_extension

STEPS = (
    "an empty repository",
    "first changesets",
    "a named branch",
    "a file that outgrows its inline revlog",
)
STREAMS = frozenset({BundleType.PACKED1, BundleType.STREAM_V2})


@pytest.fixture
def exposures(tmp_path: Path) -> Exposures:
    """A repository all of whose changesets are public and exposed."""
    made = build(tmp_path / "exposures", HgClient(CURRENT_HG, tmp_path), STEPS)
    made.commit(
        "too large for an index with its data", {"huge.bin": random.Random(1).randbytes(200_000).hex()}
    )
    made.push("-r", ".")
    made.server("phase", "-p", "-r", "all()")
    made.applied("all is public")
    return made


def open_exposed(exposures: Exposures, tmp_path: Path) -> Any:
    seq = exposures.seqs[-1]
    assert view_files.expose(exposures.full / ".hg", seq) == seq
    ui = open_ui("web", extension=write_extension(tmp_path))
    return factory.repository(ui, str(exposures.full).encode())


def nodes(repo: Any) -> list[bytes]:
    return [repo[rev].node() for rev in repo]


def refuse_pull(*_arguments: Any) -> None:
    raise AssertionError("it was pulled")


def refuse_copy(*_arguments: Any) -> None:
    raise AssertionError("files were copied")


def test_a_copy_that_is_all_public_is_copied_without_a_pull(
    exposures: Exposures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_copy, "_pulled", refuse_pull)
    repo = open_exposed(exposures, tmp_path)
    directory = tmp_path / "bundles"
    directory.mkdir()

    made = make_bundle_files(repo, directory, BundleOptions(STREAMS))

    assert made is not None
    for file in made.files:
        target = tmp_path / file.kind.value
        assert nodes(apply_bundle(file.path, target)) == nodes(repo)
        exposures.hg.run("-R", target, "verify", "-q").ok()


def appended(exposures: Exposures) -> None:
    """Add a changeset that is not exposed yet, with a file of its own."""
    exposures.commit("not exposed yet", {"unexposed.txt": "unexposed\n", "a.txt": "other\n"})
    exposures.push("-r", ".")


def half_appended(exposures: Exposures) -> None:
    """Leave a file's revision of a changeset that never comes, as a transaction under way does."""
    repo = factory.repository(open_ui("plain"), str(exposures.full).encode())
    with repo.lock(), repo.transaction(b"test") as tr:
        repo.file(b"a.txt", writable=True).add(b"unexposed", {}, tr, len(repo), b"\0" * 20, b"\0" * 20)


def half_written(exposures: Exposures) -> None:
    """Leave the bytes of a revision that no index names yet."""
    with (exposures.full / ".hg" / "store" / "data" / "huge.bin.d").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"unexposed")


def half_indexed(exposures: Exposures) -> None:
    """Leave half of an entry in an index that has its data inside."""
    with (exposures.full / ".hg" / "store" / "data" / "a.txt.i").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"unexposed")


@pytest.mark.parametrize("meanwhile", [appended, half_appended, half_written, half_indexed])
def test_what_is_written_while_files_are_copied_is_not_in_the_scratch(
    exposures: Exposures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[Exposures], None],
) -> None:
    public = open_exposed(exposures, tmp_path).unfiltered().filtered(b"immutable")
    wanted = nodes(public)
    copy = scratch_copy._copy_revlogs

    def write_and_copy(*arguments: Any) -> None:
        meanwhile(exposures)
        copy(*arguments)

    monkeypatch.setattr(scratch_copy, "_copy_revlogs", write_and_copy)
    scratch = make_scratch_copy(public, tmp_path / "scratch", {})

    assert nodes(scratch) == wanted
    store = tmp_path / "scratch" / ".hg" / "store"
    assert not [path for path in store.rglob("*") if path.is_file() and b"unexposed" in path.read_bytes()]


def test_another_format_than_the_copy_has_is_pulled(exposures: Exposures, tmp_path: Path) -> None:
    public = open_exposed(exposures, tmp_path).unfiltered().filtered(b"immutable")
    scratch = make_scratch_copy(public, tmp_path / "scratch", {"sparse-revlog": False})
    assert b"sparserevlog" not in scratch.requirements
    assert nodes(scratch) == nodes(public)


def test_files_of_a_kind_that_is_not_known_are_not_copied(
    exposures: Exposures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch_copy, "_REVLOG_FILES", (b".i",))
    monkeypatch.setattr(scratch_copy, "_copy_revlogs", refuse_copy)
    public = open_exposed(exposures, tmp_path).unfiltered().filtered(b"immutable")
    assert nodes(make_scratch_copy(public, tmp_path / "scratch", {})) == nodes(public)
