"""Reads a repository as it was at a view, while the files under it go on growing.

Everything that Mercurial appends to is read as a prefix: obsstore and pushlog by length, each revlog up to
the entry whose linkrev the view has not got. What is replaced as a whole (phase roots, bookmarks) comes from
the view.

Promises: a repository object opened through the overlay equals one opened on a copy replayed to the view's
seq, for every reader above it, also while a transaction is writing the same files; and it cannot write.
Does not: choose the view (hgext.exposed). Live stream clones copy files behind Mercurial's back and are not
covered: they are switched off where the overlay is used.

Why prefixes of revlogs and not only a repoview filter: a filter hides changesets, but a file's history still
lists entries that belong to hidden or not yet committed ones, so that annotate, diff and comparison either
name them or raise RepoLookupError while a transaction is open. A changeset's entries are always appended
behind those of all earlier messages, so cutting at the first linkrev >= n is exact. It also needs no filter
level of our own, and Mercurial's on-disk caches of the `served` one stay usable.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from mercurial import error, extensions, revlog
from mercurial import vfs as vfsmod
from mercurial.revlogutils import constants

# The key in a vfs's `options` that carries the number of changesets to show.
LENGTH = b"hgfleet-changelog-length"

_READING = frozenset((b"r", b"rb"))
_ENTRY_BYTES = constants.INDEX_ENTRY_V1.size
_LINKREV = 4  # its place in an index entry, as unpacked
_COMPRESSED_LENGTH = 1

FileContent = Callable[[], bytes | None]  # None: there is no such file


def wrap_revlogs() -> None:
    """Make every revlog whose vfs carries LENGTH a prefix; others stay as they are. Once per process."""
    extensions.wrapfunction(revlog.revlog, "_get_data", _get_data)


def _get_data(orig: Any, self: Any, filepath: bytes, mmap_threshold: Any, size: Any = None) -> Any:
    data = orig(self, filepath, mmap_threshold, size)
    length = self.opener.options.get(LENGTH)
    if length is None or not len(data):
        return data
    return revlog_prefix(data, length, is_changelog=self.target[0] == constants.KIND_CHANGELOG)


def revlog_prefix(data: Any, length: int, *, is_changelog: bool = False) -> Any:
    """Return the part of a version 1 revlog's index file that belongs to the first `length` changesets."""
    header = constants.INDEX_HEADER.unpack(data[:4])[0]
    if header & 0xFFFF != constants.REVLOGV1:
        raise error.RevlogError(b"only revlogs of version 1 can be exposed")
    if header & constants.FLAG_INLINE_DATA:
        end = _inline_end(data, length)
    elif is_changelog:
        end = length * _ENTRY_BYTES  # of the changelog, entry n is changeset n
    else:
        end = _first_entry_at_or_after(data, length) * _ENTRY_BYTES
    return data if end == len(data) else data[:end]


def _first_entry_at_or_after(data: Any, length: int) -> int:
    """Bisect; an incomplete entry at the end, which a writer is appending, counts as not there."""
    low, high = 0, len(data) // _ENTRY_BYTES
    while low < high:
        middle = (low + high) // 2
        entry = constants.INDEX_ENTRY_V1.unpack_from(data, middle * _ENTRY_BYTES)
        if entry[_LINKREV] < length:
            low = middle + 1
        else:
            high = middle
    return low


def _inline_end(data: Any, length: int) -> int:
    """Walk: entries and data alternate. Such files are small, Mercurial splits them at 128 KiB."""
    unpack = constants.INDEX_ENTRY_V1.unpack_from
    end, total = 0, len(data)
    while end + _ENTRY_BYTES <= total:
        entry = unpack(data, end)
        following = end + _ENTRY_BYTES + entry[_COMPRESSED_LENGTH]
        if entry[_LINKREV] >= length or following > total:
            break
        end = following
    return end


class OverlaidVfs(vfsmod.proxyvfs):
    """A vfs that answers for some files from memory and refuses to open any for writing."""

    def __init__(self, vfs: Any, content_by_name: Mapping[bytes, FileContent]) -> None:
        super().__init__(vfs)
        self.read_write = False
        self._content_by_name = dict(content_by_name)

    def __call__(self, path: bytes, mode: bytes = b"rb", *args: Any, **options: Any) -> Any:
        if mode not in _READING:
            raise _refusal(path)
        if path in self._content_by_name:
            return io.BytesIO(self._content(path))
        return self.vfs(path, mode, *args, **options)

    def join(self, path: bytes | None, *inside: bytes) -> bytes:
        return bytes(self.vfs.join(path, *inside))

    def stat(self, path: bytes | None = None) -> Any:
        if path in self._content_by_name:
            return SimpleNamespace(st_size=len(self._content(path)))
        return super().stat(path)

    def exists(self, path: bytes | None = None) -> bool:
        if path in self._content_by_name:
            return self._content_by_name[path]() is not None
        return bool(super().exists(path))

    def _content(self, path: bytes) -> bytes:
        content = self._content_by_name[path]()
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return content

    def rename(self, src: bytes, dst: bytes, checkambig: bool = False) -> None:
        raise _refusal(dst)

    def unlink(self, path: bytes | None = None) -> None:
        raise _refusal(path or b"")

    def mkstemp(self, *args: Any, **options: Any) -> Any:
        raise _refusal(b"")


def _refusal(path: bytes) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def read_prefix(path: bytes, size_bytes: int) -> FileContent:
    """Return what reads the first bytes of an append-only file, each time from disk; nothing for length 0."""

    def content() -> bytes | None:
        if not size_bytes:
            return None
        with open(path, "rb") as file:
            return file.read(size_bytes)

    return content
