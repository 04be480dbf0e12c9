"""Opens the files that a transaction writes in fewer steps than Mercurial does.

Before it appends to a file Mercurial opens and closes it, to see whether it has other names: it must not
write through a hard link. One question to the kernel says the same. And it makes a list of backups for every
transaction, though a small push needs none: here it is made with its first entry.

Promises: what has another name is still copied before it is written to; a journal says what it said before.
Does not: change what is written, or where.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mercurial import util, vfs

_APPENDING = frozenset({b"ab", b"a", b"a+b", b"a+", b"r+b", b"r+"})
_UNDERSTOOD = frozenset({"checkambig"})
_BACKUPS = b"journal.backupfiles"


class StoreVfs(vfs.vfs):
    """Mercurial's access to a store; only opening for writing is other."""

    def __call__(self, path: bytes, mode: bytes = b"rb", *args: Any, **named: Any) -> Any:
        """Open a file of the store."""
        # A store with a mode of its own has it set on the file at once, which must be there then.
        if path == _BACKUPS and mode == b"w" and not args and not named and self.createmode is None:
            return LaterFile(super().__call__, path, mode)
        if mode in _APPENDING and not args and named.keys() <= _UNDERSTOOD:
            self._auditpath(path, mode)
            name = self.join(path)
            if _has_one_name(name):
                file = util.posixfile(name, _binary(mode))
                return vfs.checkambigatclosing(file) if named.get("checkambig") else file
        return super().__call__(path, mode, *args, **named)


class LaterFile:
    """A file that is made when it gets more than its first line, which says its format only."""

    def __init__(self, open_file: Any, path: bytes, mode: bytes) -> None:
        self._open: Callable[[], Any] = lambda: open_file(path, mode)
        self._head: list[bytes] = []
        self._file: Any = None

    def write(self, data: bytes) -> None:
        """Keep the first write, do every other."""
        if not self._head:
            self._head.append(data)
            return
        if self._file is None:
            self._file = self._open()
            self._file.write(self._head[0])
        self._file.write(data)

    def flush(self) -> None:
        """Hand on what was written."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file, if it was made."""
        if self._file is not None:
            self._file.close()


def use(repo: Any) -> None:
    """Have an open repository's store opened in this way."""
    raw = repo.store.rawvfs
    if type(raw) is vfs.vfs:
        raw.__class__ = StoreVfs


def _has_one_name(name: bytes) -> bool:
    try:
        return os.stat(name).st_nlink == 1
    except FileNotFoundError:
        return False


def _binary(mode: bytes) -> bytes:
    return mode if b"b" in mode else mode + b"b"
