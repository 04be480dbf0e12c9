"""Nothing is named that was not read back, and no store's trouble is another's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters.directory_objects import DirectoryObjects
from hgfleet.bundles.publishing import (
    BundleStore,
    FinishedFile,
    Published,
    Publisher,
    next_entries,
    object_name,
)
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.ids import Digest, Node, RepoPath
from hgfleet.ports.object_store import ReadBack

PATH, TIP = RepoPath("team/app"), Node("ab" * 20)


class Web:
    """Fetches from the directories, or fails as it is told."""

    def __init__(self) -> None:
        self.stores: dict[str, DirectoryObjects] = {}
        self.answers: dict[str, ReadBack | Exception | None] = {}

    def read(self, url: str) -> ReadBack | None:
        host, _, name = url.removeprefix("https://").partition("/")
        answer = self.answers.get(host, self.stores[host].read_back(name))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def size_of(self, url: str) -> int | None:
        found = self.read(url)
        return found.size_bytes if found is not None else None


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def stores(tmp_path: Path, web: Web) -> list[BundleStore]:
    for name in ("near", "far"):
        web.stores[name] = DirectoryObjects(tmp_path / name)
    return [
        BundleStore(name, objects, f"https://{name}/", {"datacenter": name})
        for name, objects in web.stores.items()
    ]


@pytest.fixture
def files(tmp_path: Path) -> list[FinishedFile]:
    return [made(tmp_path, kind, kind.value.encode()) for kind in (BundleType.ZSTD, BundleType.GZIP_V1)]


def made(tmp_path: Path, kind: BundleType, data: bytes) -> FinishedFile:
    digest = Digest(hashlib.sha256(data).hexdigest())
    path = tmp_path / digest
    path.write_bytes(data)
    return FinishedFile(kind, path, "zstd-v2", len(data), digest)


def places(entries: tuple[ManifestEntry, ...] | list[ManifestEntry]) -> list[tuple[str, str]]:
    return [(entry.store, entry.kind.value) for entry in entries]


def test_every_file_is_named_at_every_store(
    stores: list[BundleStore], web: Web, files: list[FinishedFile]
) -> None:
    published = Publisher(stores, web).publish(PATH, TIP, files)
    assert places(published.entries) == [
        ("near", "zstd"),
        ("near", "gzip-v1"),
        ("far", "zstd"),
        ("far", "gzip-v1"),
    ]
    assert not published.failures
    first = published.entries[0]
    assert first.url == f"https://near/{object_name(PATH, TIP, files[0])}"
    assert (first.size_bytes, first.sha256) == (files[0].size_bytes, files[0].sha256)
    assert first.attributes == {"datacenter": "near"}


def test_an_objects_name_has_path_tip_digest_and_type(files: list[FinishedFile]) -> None:
    assert object_name(PATH, TIP, files[0]) == f"team/app/{TIP}.{files[0].sha256[:12]}.zstd.hg"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        ReadBack(4, Digest("0" * 64)),
        TransientError("object.unreachable", "the public URL does not answer"),
        RejectedError("object.url", "clients cannot fetch from the public URL"),
    ],
    ids=["gone", "other bytes", "unreachable", "forbidden"],
)
def test_what_clients_could_not_fetch_is_not_named_and_the_other_store_goes_on(
    stores: list[BundleStore],
    web: Web,
    files: list[FinishedFile],
    answer: ReadBack | Exception | None,
) -> None:
    web.answers["near"] = answer
    published = Publisher(stores, web).publish(PATH, TIP, files)
    assert places(published.entries) == [("far", "zstd"), ("far", "gzip-v1")]
    assert {failure.store for failure in published.failures} == {"near"}


def test_a_store_that_loses_what_it_is_given_is_not_believed(
    stores: list[BundleStore], web: Web, files: list[FinishedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.stores["near"], "put", lambda *_arguments: None)
    published = Publisher(stores, web).publish(PATH, TIP, files)
    assert "the store has not what was put there" in str(published.failures[0].error)
    assert {entry.store for entry in published.entries} == {"far"}


def test_publishing_again_uploads_nothing_again(
    stores: list[BundleStore], web: Web, files: list[FinishedFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Publisher(stores, web).publish(PATH, TIP, files)
    for objects in web.stores.values():
        monkeypatch.setattr(objects, "put", lambda *_arguments: pytest.fail("it is there"))
    assert Publisher(stores, web).publish(PATH, TIP, files) == first


def test_an_object_that_was_damaged_is_put_again(
    stores: list[BundleStore], web: Web, files: list[FinishedFile], tmp_path: Path
) -> None:
    Publisher(stores, web).publish(PATH, TIP, files)
    (tmp_path / "near" / object_name(PATH, TIP, files[0])).write_bytes(b"damaged")
    first = Publisher(stores, web).publish(PATH, TIP, files)
    assert (first.failures, len(first.entries)) == ((), 4)


def test_a_store_that_cannot_be_reached_is_asked_once(
    stores: list[BundleStore], web: Web, files: list[FinishedFile]
) -> None:
    web.answers["near"] = TransientError("object.unreachable", "the public URL does not answer")
    assert len(Publisher(stores, web).publish(PATH, TIP, files).failures) == 1


# ---- what the next manifest names


def entry(store: str, kind: BundleType = BundleType.ZSTD) -> ManifestEntry:
    return ManifestEntry(f"https://{store}/old", kind, "zstd-v2", 1, Digest("cd" * 32), store)


def test_the_new_bundles_replace_the_old_ones(
    stores: list[BundleStore], web: Web, files: list[FinishedFile]
) -> None:
    published = Publisher(stores, web).publish(PATH, TIP, files)
    old = [entry("near"), entry("far"), entry("near", BundleType.PACKED1)]
    assert next_entries(old, published, ["near", "far"]) == list(published.entries)


def test_a_store_that_failed_keeps_what_it_had(
    stores: list[BundleStore], web: Web, files: list[FinishedFile]
) -> None:
    web.answers["near"] = TransientError("object.unreachable", "the public URL does not answer")
    published = Publisher(stores, web).publish(PATH, TIP, files)
    kept = next_entries([entry("near"), entry("far")], published, ["near", "far"])
    assert places(kept) == [("far", "zstd"), ("far", "gzip-v1"), ("near", "zstd")]
    assert kept[-1] == entry("near")


def test_what_a_person_added_survives_and_what_a_former_store_has_does_not() -> None:
    by_hand = replace(entry("near"), store="")
    assert next_entries([by_hand, entry("former")], Published((), ()), ["near"]) == [by_hand]
