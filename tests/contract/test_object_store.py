"""What every object store must keep. An adapter's class says how to make one and to damage an object."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from hgfleet.adapters.directory_objects import DirectoryObjects
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ObjectStore, ReadBack

NAME = "team/app/0123abcd.zstd.hg"
BAD_NAMES = (
    "",
    "/etc/passwd",
    "../x",
    "a/../b",
    "a//b",
    "a/",
    ".hidden",
    "-option",
    "a b",
    "a\nb",
    "ä",
    "a/.x",
)


def made(tmp_path: Path, data: bytes) -> tuple[Path, Digest]:
    digest = Digest(hashlib.sha256(data).hexdigest())
    path = tmp_path / digest
    path.write_bytes(data)
    return path, digest


class ObjectStoreContract(ABC):
    """Runs on every adapter."""

    @abstractmethod
    def damage(self, store: ObjectStore, name: str) -> None:
        """Change a stored object's bytes behind the store's back."""

    def names(self, store: ObjectStore) -> list[str]:
        return [stored.name for stored in store.list()]

    @pytest.mark.parametrize("size", [0, 1, 3_000_001])
    def test_an_object_is_read_back_as_it_was_put(
        self, store: ObjectStore, tmp_path: Path, size: int
    ) -> None:
        source, digest = made(tmp_path, b"x" * size)
        store.put(NAME, source, digest)
        assert store.read_back(NAME) == ReadBack(size, digest)
        assert [(stored.name, stored.size_bytes) for stored in store.list()] == [(NAME, size)]

    def test_what_was_never_put_is_not_there(self, store: ObjectStore) -> None:
        assert store.read_back(NAME) is None
        assert not store.renew(NAME)
        store.delete(NAME)
        assert self.names(store) == []

    def test_a_file_that_is_not_what_its_digest_says_is_not_published(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        source, _ = made(tmp_path, b"one")
        _, other = made(tmp_path, b"two")
        with pytest.raises(RejectedError, match="not what its digest says"):
            store.put(NAME, source, other)
        assert store.read_back(NAME) is None

    def test_different_bytes_never_share_a_name(self, store: ObjectStore, tmp_path: Path) -> None:
        first, digest = made(tmp_path, b"one")
        store.put(NAME, first, digest)
        with pytest.raises(RejectedError) as refused:
            store.put(NAME, *made(tmp_path, b"two"))
        assert refused.value.code == "object.taken"
        assert store.read_back(NAME) == ReadBack(3, digest)

    def test_the_same_bytes_again_are_welcome(self, store: ObjectStore, tmp_path: Path) -> None:
        source, digest = made(tmp_path, b"one")
        store.put(NAME, source, digest)
        store.put(NAME, source, digest)
        assert self.names(store) == [NAME]

    def test_of_two_at_once_one_has_the_name(self, store: ObjectStore, tmp_path: Path) -> None:
        refused: list[RejectedError] = []

        def put(data: bytes) -> None:
            try:
                store.put(NAME, *made(tmp_path, data))
            except RejectedError as error:
                refused.append(error)

        threads = [threading.Thread(target=put, args=(b"%d" % number * 100_000,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 3
        read = store.read_back(NAME)
        assert read is not None
        assert read.size_bytes == 100_000

    def test_damage_is_seen_by_reading_back(self, store: ObjectStore, tmp_path: Path) -> None:
        source, digest = made(tmp_path, b"one")
        store.put(NAME, source, digest)
        self.damage(store, NAME)
        read = store.read_back(NAME)
        assert read is not None
        assert read.sha256 != digest

    def test_renewing_makes_an_object_younger(self, store: ObjectStore, tmp_path: Path) -> None:
        source, digest = made(tmp_path, b"one")
        store.put(NAME, source, digest)
        [before] = store.list()
        assert store.renew(NAME)
        [after] = store.list()
        assert after.modified_at >= before.modified_at
        assert store.read_back(NAME) == ReadBack(3, digest)

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(
        self, store: ObjectStore, tmp_path: Path
    ) -> None:
        store.put(NAME, *made(tmp_path, b"one"))
        store.delete(NAME)
        store.delete(NAME)
        assert self.names(store) == []
        store.put(NAME, *made(tmp_path, b"two"))  # the name is free again

    def test_a_page_is_replaced(self, store: ObjectStore) -> None:
        store.put_page("bundles.json", b"{}", "application/json")
        store.put_page("bundles.json", b"[1]", "application/json")
        assert store.read_back("bundles.json") == ReadBack(3, Digest(hashlib.sha256(b"[1]").hexdigest()))

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_a_name_that_could_leave_the_store_is_refused(
        self, store: ObjectStore, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(RejectedError) as refused:
            store.put(name, *made(tmp_path, b"one"))
        assert refused.value.code == "object.bad-name"
        with pytest.raises(RejectedError):
            store.read_back(name)
        with pytest.raises(RejectedError):
            store.delete(name)


class TestDirectoryObjects(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> DirectoryObjects:
        return DirectoryObjects(tmp_path / "store")

    def damage(self, store: ObjectStore, name: str) -> None:
        assert isinstance(store, DirectoryObjects)
        store._path(name).write_bytes(b"damaged")

    def test_a_store_that_cannot_be_written_is_unreachable_not_empty(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("no directory")
        with pytest.raises(TransientError):
            DirectoryObjects(tmp_path / "store").put(NAME, *made(tmp_path, b"one"))

    def test_a_server_of_another_account_can_read_what_is_published(
        self, store: DirectoryObjects, tmp_path: Path
    ) -> None:
        store.put(NAME, *made(tmp_path, b"one"))
        assert (tmp_path / "store" / NAME).stat().st_mode & 0o777 == 0o644
        assert not list((tmp_path / "store" / ".incoming").iterdir())
