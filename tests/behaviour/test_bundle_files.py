"""Clone bundles hold exactly what is public and exposed, in every format."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from mercurial import bundlecaches
from mercurial.repo import factory

from hgfleet.adapters import view_files
from hgfleet.hgext import bundle_files
from hgfleet.hgext.bundle_files import BundleOptions, make_bundle_files
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.ids import Seq
from tests.support.bundle_reading import apply_bundle
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import STEPS, Exposures, build, open_ui, write_extension

SEQS = range(1, len(STEPS) + 1)
ALL = frozenset(BundleType) - {BundleType.OTHER}


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("exposures")
    return build(directory, HgClient(CURRENT_HG, directory))


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_extension(tmp_path_factory.mktemp("extension"))


def open_exposed(exposures: Exposures, extension: Path, seq: int) -> Any:
    hg_directory = exposures.full / ".hg"
    exposed = view_files.read_exposed(hg_directory)
    if exposed is None or exposed.seq != seq:
        (hg_directory / view_files.EXPOSED).unlink(missing_ok=True)
        assert view_files.expose(hg_directory, Seq(seq)) == seq
    return factory.repository(open_ui("web", extension=extension), str(exposures.full).encode())


def public_nodes(exposures: Exposures, seq: int) -> list[bytes]:
    repo = factory.repository(open_ui("plain"), str(exposures.copy(Seq(seq))).encode())
    return [repo[rev].node() for rev in repo.revs(b"public()")]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "bundles"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("seq", SEQS)
def test_every_format_has_what_is_public_at_the_exposed_seq_and_nothing_else(
    exposures: Exposures, extension: Path, directory: Path, tmp_path: Path, seq: int
) -> None:
    wanted = public_nodes(exposures, seq)
    made = make_bundle_files(open_exposed(exposures, extension, seq), directory, BundleOptions(ALL))

    if not wanted:
        assert made is None
        assert not list(directory.iterdir())
        return
    assert made is not None
    assert (made.seq, made.changesets, made.tip) == (seq, len(wanted), wanted[-1].hex())
    assert {file.kind for file in made.files} == ALL
    for file in made.files:
        repo = apply_bundle(file.path, tmp_path / file.kind.value).unfiltered()
        assert [repo[rev].node() for rev in repo] == wanted, file.kind
        assert not repo.obsstore._all
        data = file.path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size_bytes, file.sha256)
    assert {path.name for path in directory.iterdir()} == {f"{kind.value}.hg" for kind in ALL}


def test_mercurial_takes_each_specification_and_knows_the_streaming_ones(
    exposures: Exposures, extension: Path, directory: Path
) -> None:
    repo = open_exposed(exposures, extension, len(SEQS))
    made = make_bundle_files(repo, directory, BundleOptions(ALL))
    assert made is not None
    for file in made.files:
        spec = bundlecaches.parsebundlespec(repo, file.spec.encode())
        assert bundlecaches.isstreamclonespec(spec) == file.kind.is_streaming, file.spec
        assert b"hgfleet" not in file.spec.encode()


def test_two_runs_on_one_state_make_the_same_changegroups(
    exposures: Exposures, extension: Path, tmp_path: Path
) -> None:
    kinds = frozenset({BundleType.ZSTD, BundleType.GZIP_V2, BundleType.GZIP_V1})
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        repo = open_exposed(exposures, extension, len(SEQS))
        made = make_bundle_files(repo, tmp_path / name, BundleOptions(kinds))
        assert made is not None
        digests.append([file.sha256 for file in made.files])
    assert digests[0] == digests[1]


def test_what_old_clients_may_stream_follows_the_format_that_was_asked_for(
    exposures: Exposures, extension: Path, directory: Path
) -> None:
    old = {"sparse-revlog": False, "revlog-compression": "zlib"}
    options = BundleOptions(frozenset({BundleType.PACKED1}), stream_format=old)
    made = make_bundle_files(open_exposed(exposures, extension, len(SEQS)), directory, options)
    assert made is not None
    assert made.files[0].spec == "none-packed1;requirements=generaldelta,revlogv1"


@pytest.mark.parametrize("step", ["_stream", "make_scratch_copy", "_prefixed"])
def test_a_run_that_fails_leaves_nothing_behind(
    exposures: Exposures,
    extension: Path,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def fail(*_arguments: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(bundle_files, step, fail)
    with pytest.raises(OSError, match="no space left"):
        make_bundle_files(open_exposed(exposures, extension, len(SEQS)), directory, BundleOptions(ALL))
    assert not list(directory.iterdir())
