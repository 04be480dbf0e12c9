"""What every blob store must keep. An adapter's class names how to make one, and how to damage a blob."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from hgfleet.adapters.directory_blobs import DirectoryBlobs
from hgfleet.adapters.s3_blobs import S3Blobs
from hgfleet.adapters.s3_client import S3Options
from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.ids import NO_DIGEST, Digest
from hgfleet.ports.blob_store import BlobStore
from tests.support.s3_server import REGION, S3Server


def spool(tmp_path: Path, data: bytes, name: str = "spool") -> tuple[Path, Digest]:
    path = tmp_path / name
    path.write_bytes(data)
    return path, Digest(hashlib.sha256(data).hexdigest())


class BlobStoreContract(ABC):
    """Runs on every adapter."""

    @pytest.fixture
    @abstractmethod
    def store(self, tmp_path: Path) -> BlobStore:
        """Return an empty store."""

    @abstractmethod
    def damage(self, store: BlobStore, sha256: Digest) -> None:
        """Change a stored blob's bytes behind the store's back."""

    @pytest.mark.parametrize("size", [0, 1, 3_000_000, 12_000_001])
    def test_a_blob_comes_back_whole(self, store: BlobStore, tmp_path: Path, size: int) -> None:
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        source, sha256 = spool(tmp_path, data)
        store.put(source, sha256)
        store.get(sha256, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == data
        assert source.read_bytes() == data

    def test_it_is_there_after_put_and_not_before(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data")
        assert not store.contains(sha256)
        store.put(source, sha256)
        assert store.contains(sha256)

    def test_a_blob_of_another_digest_is_refused(self, store: BlobStore, tmp_path: Path) -> None:
        source, _ = spool(tmp_path, b"data")
        _, other = spool(tmp_path, b"other", "other")
        with pytest.raises(RejectedError) as caught:
            store.put(source, other)
        assert caught.value.code == "blob.digest"
        assert not store.contains(other)
        assert list(store.list()) == []

    def test_a_blob_needs_a_digest(self, store: BlobStore, tmp_path: Path) -> None:
        source, _ = spool(tmp_path, b"data")
        for wrong in (NO_DIGEST, Digest("../../etc/passwd"), Digest("AB" * 32)):
            with pytest.raises(RejectedError):
                store.put(source, wrong)
            with pytest.raises(RejectedError):
                store.get(wrong, tmp_path / "target")

    def test_a_missing_blob_is_said_and_nothing_is_written(self, store: BlobStore, tmp_path: Path) -> None:
        with pytest.raises(RejectedError) as caught:
            store.get(Digest("0" * 64), tmp_path / "target")
        assert caught.value.code == "blob.missing"
        assert not (tmp_path / "target").exists()

    def test_a_damaged_blob_is_never_given_out(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data")
        store.put(source, sha256)
        self.damage(store, sha256)
        with pytest.raises(PoisonError) as caught:
            store.get(sha256, tmp_path / "target")
        assert caught.value.code == "blob.damaged"
        assert not (tmp_path / "target").exists()

    def test_putting_again_repairs_a_damaged_blob(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data")
        store.put(source, sha256)
        self.damage(store, sha256)
        store.put(source, sha256)
        store.get(sha256, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"data"

    def test_putting_twice_and_at_once_changes_nothing(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data" * 100_000)
        threads = [threading.Thread(target=store.put, args=(source, sha256)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.put(source, sha256)
        assert [(digest, size) for digest, size, _ in store.list()] == [(sha256, 400_000)]

    def test_get_replaces_what_lies_at_the_target(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data")
        store.put(source, sha256)
        (tmp_path / "target").write_bytes(b"old")
        store.get(sha256, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"data"

    def test_deleting_removes_and_may_be_repeated(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data")
        store.put(source, sha256)
        store.delete(sha256)
        store.delete(sha256)
        assert list(store.list()) == []
        assert not store.contains(sha256)

    def test_it_lists_every_blob_with_its_size_and_age(self, store: BlobStore, tmp_path: Path) -> None:
        sizes = {}
        for number in range(5):
            source, sha256 = spool(tmp_path, b"x" * number)
            store.put(source, sha256)
            sizes[sha256] = number
        assert {digest: size for digest, size, _ in store.list()} == sizes
        assert all(abs(time.time() - modified_at) < 600 for _, _, modified_at in store.list())

    def test_cleaning_up_leaves_blobs_alone(self, store: BlobStore, tmp_path: Path) -> None:
        source, sha256 = spool(tmp_path, b"data")
        assert store.clean_up(0) == 0
        store.put(source, sha256)
        assert store.clean_up(0) == 0
        assert store.contains(sha256)


class TestDirectoryBlobs(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> DirectoryBlobs:
        return DirectoryBlobs(tmp_path / "blobs")

    def damage(self, store: BlobStore, sha256: Digest) -> None:
        assert isinstance(store, DirectoryBlobs)
        store._path(sha256).write_bytes(b"dat!")

    def test_blobs_are_spread_over_directories_and_private(
        self, store: DirectoryBlobs, tmp_path: Path
    ) -> None:
        source, sha256 = spool(tmp_path, b"data")
        store.put(source, sha256)
        path = tmp_path / "blobs" / sha256[:2] / sha256[2:4] / sha256
        assert path.stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in (tmp_path / "blobs" / "incoming").iterdir()] == []

    def test_what_a_killed_put_left_is_cleaned_up_once_it_is_old(
        self, store: DirectoryBlobs, tmp_path: Path
    ) -> None:
        (tmp_path / "blobs" / "incoming").mkdir(parents=True)
        draft = tmp_path / "blobs" / "incoming" / "draft"
        draft.write_bytes(b"half")
        assert store.clean_up(3600) == 0
        assert store.clean_up(-1) == 1
        assert not draft.exists()


_buckets = itertools.count(1)


class TestS3Blobs(BlobStoreContract):
    """A real S3 server, every test in a bucket of its own."""

    server: S3Server
    options: S3Options

    @pytest.fixture
    def store(self, s3_server: S3Server) -> S3Blobs:
        self.server = s3_server
        self.options = S3Options(
            bucket=s3_server.make_bucket(f"contract-{next(_buckets)}"),
            prefix="blobs/",
            endpoint=s3_server.endpoint,
            region=REGION,
            addressing="path",
            credentials_file=s3_server.credentials_file,
            part_bytes=5 * 1024 * 1024,
        )
        return S3Blobs(self.options)

    def damage(self, store: BlobStore, sha256: Digest) -> None:
        self.server.object_file(self.options.bucket, f"blobs/{sha256[:2]}/{sha256}").write_bytes(b"dat!")

    def test_many_blobs_are_listed_page_by_page_and_nothing_else(self, store: S3Blobs) -> None:
        bucket = self.server.data / self.options.bucket
        digests = {hashlib.sha256(bytes([number >> 8, number & 255])).hexdigest() for number in range(1100)}
        for digest in digests:
            path = bucket / "blobs" / digest[:2] / digest
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for foreign in ("blobs/other", "elsewhere", f"blobs/zz/{'0' * 64}", f"blobs/{'0' * 64}"):
            (bucket / foreign).parent.mkdir(parents=True, exist_ok=True)
            (bucket / foreign).touch()
        assert {digest for digest, _, _ in store.list()} == digests
