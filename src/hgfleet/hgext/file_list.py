"""Appends to the store's list of files (`fncache`) instead of writing it anew for every file that is added.

Mercurial copies the list, appends to the copy and renames it over the original, with a link as backup: 30 MB
for each push that adds a file to half a million. Whoever reads the list of a fleet's repository holds the
lock, so it may grow in place.

Promises: a transaction that is undone cuts the list back, as it does with revlogs.
Does not: remove names (Mercurial's own way then), or spare the reading of the list.
"""

from __future__ import annotations

from typing import Any

from mercurial import store


class AppendedList(store.fncache):
    """Mercurial's list, written by appending where only names were added."""

    addls: set[bytes]

    def write(self, tr: Any, _backup: bool = True) -> None:
        """Write what was added; the transaction notes where that begins."""
        if self._dirty or not _backup or not self.addls:
            super().write(tr, _backup)
            return
        names, self.addls = sorted(self.addls), set()
        with self.vfs(b"fncache", mode=b"ab") as file:
            tr.add(b"fncache", file.tell())
            file.write(store.encodedir(b"\n".join(names) + b"\n"))
        self.entries = None


def append_to(repo: Any) -> None:
    """Have an open repository append to its list, if it has one."""
    files = getattr(repo.store, "fncache", None)
    if type(files) is store.fncache:
        files.__class__ = AppendedList
