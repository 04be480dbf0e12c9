"""What every object store must keep. An adapter's class says how to make one and to damage an object."""

from __future__ import annotations

import hashlib
import itertools
import threading
from abc import ABC, abstractmethod
from pathlib import Path

import pytest
import urllib3

from hgfleet.adapters.directory_objects import DirectoryObjects
from hgfleet.adapters.s3_client import S3Options
from hgfleet.adapters.s3_objects import S3Objects
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ObjectStore, ReadBack
from tests.support.s3_server import S3Server

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

    def test_cleaning_up_leaves_objects_alone(self, store: ObjectStore, tmp_path: Path) -> None:
        assert store.clean_up(0) == 0
        store.put(NAME, *made(tmp_path, b"one"))
        assert store.clean_up(0) == 0
        assert self.names(store) == [NAME]


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

    def test_what_a_killed_put_left_is_cleaned_up_once_it_is_old(
        self, store: DirectoryObjects, tmp_path: Path
    ) -> None:
        store.put(NAME, *made(tmp_path, b"one"))
        draft = tmp_path / "store" / ".incoming" / "draft"
        draft.write_bytes(b"half")
        assert store.clean_up(3600) == 0
        assert store.clean_up(-1) == 1
        assert not draft.exists()


_buckets = itertools.count(1)
PART_BYTES = 5 * 1024 * 1024


class TestS3Objects(ObjectStoreContract):
    """A real S3 server, every test in a bucket of its own."""

    server: S3Server
    options: S3Options

    @pytest.fixture
    def store(self, s3_server: S3Server) -> S3Objects:
        self.server = s3_server
        self.options = s3_server.options(
            s3_server.make_bucket(f"objects-{next(_buckets)}"), prefix="bundles/", part_bytes=PART_BYTES
        )
        return S3Objects(self.options, copy_limit_bytes=2 * PART_BYTES)

    def damage(self, store: ObjectStore, name: str) -> None:
        self.server.object_file(self.options.bucket, f"bundles/{name}").write_bytes(b"dam")

    def fetch(self, name: str) -> urllib3.BaseHTTPResponse:
        self.server.let_everybody_read(self.options.bucket)
        return urllib3.request("GET", self.server.url_of(self.options.bucket, f"bundles/{name}"))

    @pytest.mark.parametrize("size", [2 * PART_BYTES + 1, 3 * PART_BYTES])
    def test_a_large_object_is_sent_and_renewed_in_parts(
        self, store: S3Objects, tmp_path: Path, size: int
    ) -> None:
        source, digest = made(tmp_path, b"0123456789abcdef" * (size // 16) + b"x" * (size % 16))
        store.put(NAME, source, digest)
        assert store.read_back(NAME) == ReadBack(size, digest)
        assert store.renew(NAME)
        assert store.read_back(NAME) == ReadBack(size, digest)
        assert store.clean_up(-60) == 0
        with pytest.raises(RejectedError, match="other bytes"):
            store.put(NAME, *made(tmp_path, b"y" * size))

    @pytest.mark.parametrize("size", [3, 2 * PART_BYTES + 1])
    def test_caches_are_told_that_an_object_never_changes_before_and_after_it_is_renewed(
        self, store: S3Objects, tmp_path: Path, size: int
    ) -> None:
        store.put(NAME, *made(tmp_path, b"x" * size))
        for _ in range(2):
            answer = self.fetch(NAME)
            assert (answer.status, len(answer.data)) == (200, size)
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert store.renew(NAME)

    def test_caches_ask_again_for_a_page(self, store: S3Objects) -> None:
        store.put_page("bundles.json", b"{}", "application/json")
        answer = self.fetch("bundles.json")
        assert (answer.headers["Content-Type"], answer.data) == ("application/json", b"{}")
        assert "immutable" not in answer.headers["Cache-Control"]

    def test_what_lies_beside_the_prefix_or_has_no_name_of_ours_is_not_listed(
        self, store: S3Objects, tmp_path: Path
    ) -> None:
        bucket = self.server.data / self.options.bucket
        for foreign in ("other/a.hg", "bundles/.hidden/a.hg", "bundles/a b.hg", "top"):
            path = bucket / foreign
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        store.put(NAME, *made(tmp_path, b"one"))
        assert self.names(store) == [NAME]

    def test_objects_are_listed_page_by_page(self, store: S3Objects) -> None:
        directory = self.server.data / self.options.bucket / "bundles" / "many"
        directory.mkdir(parents=True)
        for number in range(1100):
            (directory / f"{number}.hg").touch()
        assert len(self.names(store)) == 1100
