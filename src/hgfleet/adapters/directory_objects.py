"""An object store that is a directory: served by hgfleet itself on one machine, or by any HTTP server.

    <root>/<name>               an object         <root>/.incoming/<random>    one on its way

Promises: those of ports.object_store; a name appears by link, after its bytes are on disk, and only if
nothing else has it.
Does not: serve HTTP.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hgfleet.adapters.object_names import check_name, is_part
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ReadBack, StoredObject
from hgfleet.runtime import clock

_INCOMING = ".incoming"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class DirectoryObjects:
    """Objects below one directory of a local file system, for any number of threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, source: Path, sha256: Digest) -> None:
        """Copy the file in under a name of its own, then link it to the one that it shall have."""
        target = self._path(name)
        with _store_errors(name), self._draft() as draft:
            shutil.copyfile(source, draft)
            if _read(draft).sha256 != sha256:
                raise RejectedError("object.digest", "the file is not what its digest says", name=name)
            _publish(draft, target)
            if _read(target).sha256 != sha256:
                raise RejectedError("object.taken", "other bytes have that name", name=name)
            os.utime(target)

    def put_page(self, name: str, data: bytes, content_type: str) -> None:
        """Replace the page by rename; a server tells its type by the name's ending."""
        target = self._path(name)
        with _store_errors(name), self._draft() as draft:
            draft.write_bytes(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.rename(target)

    def read_back(self, name: str) -> ReadBack | None:
        """Hash the file."""
        with _store_errors(name):
            try:
                return _read(self._path(name))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def renew(self, name: str) -> bool:
        """Touch the file."""
        with _store_errors(name):
            try:
                os.utime(self._path(name))
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def delete(self, name: str) -> None:
        """Remove the file, and the directories that are empty then."""
        path = self._path(name)
        with _store_errors(name):
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
            self._remove_empty(path.parent)

    def list(self) -> Iterator[StoredObject]:
        """Yield every file that a name can reach."""
        for directory, names, files in os.walk(self._root):
            names[:] = sorted(name for name in names if is_part(name))
            for file in sorted(file for file in files if is_part(file)):
                path = Path(directory, file)
                with suppress(FileNotFoundError):  # deleted since it was listed
                    status = path.stat()
                    yield StoredObject(str(path.relative_to(self._root)), status.st_size, status.st_mtime)

    def clean_up(self, older_than_seconds: float) -> int:
        """Remove old drafts."""
        begun_before = clock.now() - older_than_seconds
        count = 0
        with _store_errors(_INCOMING):
            for draft in (self._root / _INCOMING).glob("*"):
                with suppress(FileNotFoundError):  # finished since it was listed
                    if draft.stat().st_mtime < begun_before:
                        draft.unlink()
                        count += 1
        return count

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        directory = self._root / _INCOMING
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / uuid.uuid4().hex
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _remove_empty(self, directory: Path) -> None:
        while directory != self._root and directory.is_relative_to(self._root):
            try:
                directory.rmdir()
            except OSError:  # it is not empty, or somebody was faster
                return
            directory = directory.parent


def _publish(draft: Path, target: Path) -> None:
    """Give the file its name, durably, unless the name is taken."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _fsync(draft, os.O_RDWR)
    with suppress(FileExistsError):
        target.hardlink_to(draft)
        target.chmod(0o644)
    _fsync(target.parent, os.O_RDONLY | os.O_DIRECTORY)


def _read(path: Path) -> ReadBack:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ReadBack(file.tell(), Digest(digest))


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _store_errors(name: str) -> Iterator[None]:
    """Turn what the file system says into the port's errors."""
    try:
        yield
    except OSError as error:
        code = "object.full" if error.errno in _NO_SPACE else "object.unreachable"
        message = "the bundle store is full" if code == "object.full" else "the bundle store cannot be used"
        raise TransientError(code, message, name=name, reason=str(error)) from error
