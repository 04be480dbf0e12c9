"""The blob store on one machine: files named by their SHA-256 under two levels of directories.

    <root>/ab/cd/abcd…    a blob        <root>/incoming/<random>    one on its way

Promises: those of ports.blob_store; a name appears only after its bytes are on disk, and a damaged blob
is replaced when the same one is put again.
Does not: collect what no message names (that needs the log).
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hgfleet.errors import PoisonError, RejectedError, TransientError
from hgfleet.model.ids import NO_DIGEST, Digest, parse_digest
from hgfleet.runtime import clock

CHUNK_BYTES = 1024 * 1024
_INCOMING = "incoming"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class DirectoryBlobs:
    """Blobs in a directory of a local file system, for any number of threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, source: Path, sha256: Digest) -> None:
        """Copy the file in, checking its digest on the way."""
        target = self._path(sha256)
        with _blob_errors(sha256):
            if not self._holds(target, sha256):
                self._copy_in(source, target, sha256)
            _fsync_directory(target.parent)

    def get(self, sha256: Digest, target: Path) -> None:
        """Copy the blob to `target`; nothing appears there unless it is whole."""
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with _blob_errors(sha256):
            try:
                if self._copy_out(sha256, draft) != sha256:
                    raise PoisonError("blob.damaged", "a stored blob is damaged", sha256=sha256)
                draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)

    def contains(self, sha256: Digest) -> bool:
        """Say whether the blob is there, without looking into it."""
        with _blob_errors(sha256):
            return self._path(sha256).exists()

    def delete(self, sha256: Digest) -> None:
        """Remove the blob's file."""
        with _blob_errors(sha256):
            self._path(sha256).unlink(missing_ok=True)

    def list(self) -> Iterator[tuple[Digest, int, float]]:
        """Yield what lies in the two-level directories; what is on its way is left out."""
        for path in self._root.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # deleted since it was listed
            yield parse_digest(path.name), status.st_size, status.st_mtime

    def clean_up(self, older_than_seconds: float) -> int:
        """Remove what lies in `incoming` and was last written so long ago."""
        before, count = clock.now() - older_than_seconds, 0
        with _blob_errors(NO_DIGEST):
            for draft in (self._root / _INCOMING).glob("*"):
                try:
                    if draft.stat().st_mtime < before:
                        draft.unlink()
                        count += 1
                except FileNotFoundError:
                    continue  # it was whole and got its name
        return count

    def _path(self, sha256: Digest) -> Path:
        if not parse_digest(sha256):
            raise RejectedError("blob.no-digest", "a blob is named by its digest")
        return self._root / sha256[:2] / sha256[2:4] / sha256

    @staticmethod
    def _holds(path: Path, sha256: Digest) -> bool:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    def _copy_in(self, source: Path, target: Path, sha256: Digest) -> None:
        draft = self._make_directory(self._root / _INCOMING) / uuid.uuid4().hex
        try:
            with source.open("rb") as file:
                seen = _copy(file, draft)
            if seen != sha256:
                raise RejectedError("blob.digest", "the blob is not what its digest says", sha256=sha256)
            self._make_directory(target.parent)
            draft.rename(target)
        finally:
            draft.unlink(missing_ok=True)

    def _copy_out(self, sha256: Digest, draft: Path) -> Digest:
        try:
            file = self._path(sha256).open("rb")
        except FileNotFoundError as error:
            raise RejectedError("blob.missing", "no such blob", status=404, sha256=sha256) from error
        with file:
            return _copy(file, draft)

    def _make_directory(self, directory: Path) -> Path:
        """Make the directory; its name is on disk before anything in it is relied on."""
        if not directory.is_dir():
            self._make_directory(directory.parent)
            directory.mkdir(mode=0o700, exist_ok=True)
            _fsync_directory(directory.parent)
        return directory


def _copy(source: BinaryIO, target: Path) -> Digest:
    """Copy to a new file, durably, and return the digest of what was copied."""
    total = hashlib.sha256()
    with target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        while chunk := source.read(CHUNK_BYTES):
            total.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Digest(total.hexdigest())


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _blob_errors(sha256: Digest) -> Iterator[None]:
    """Turn what the file system says into the port's errors."""
    try:
        yield
    except OSError as error:
        code = "blob.full" if error.errno in _NO_SPACE else "blob.unavailable"
        message = "the blob store is full" if code == "blob.full" else "the blob store cannot be used"
        raise TransientError(code, message, sha256=sha256, reason=str(error)) from error
