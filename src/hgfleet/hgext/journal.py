"""Rolls transactions back from their journal: those of dead processes, and our own when they fail.

Mercurial's own way of aborting trips over a full disk: what it could not write down stops it from undoing
what it did. Here the files of the journal alone say what to undo.

Promises: a journal is rolled back whole, or stays for the next attempt; only one whose process is gone, or
our own, is touched: the caller holds the lock that its writer held.
Does not: bring back what the log has and the copy lost by it (hgext.recovery).
"""

from __future__ import annotations

import os
from typing import Any

from mercurial import localrepo, transaction

from hgfleet.hgext import generations, lock_guard
from hgfleet.hgext.copies import Copy

JOURNAL = b"journal"


def recover_abandoned(repo: Any) -> bool:
    """Roll an abandoned transaction back; the caller holds the lock. Returns whether there was one."""
    unfiltered = repo.unfiltered()
    if not unfiltered.svfs.exists(JOURNAL) or unfiltered.currenttransaction() is not None:
        return False
    roll_back(unfiltered.svfs, unfiltered.vfs_map)
    unfiltered.invalidate(clearfilecache=True)
    return True


def roll_back(svfs: Any, vfs_by_location: dict[bytes, Any]) -> None:
    """Undo what the journal names. Raises OSError: it stays for the next attempt."""
    for name in (JOURNAL, JOURNAL + b".backupfiles"):
        _drop_torn_line(svfs, name)
    transaction.rollback(
        svfs, vfs_by_location, JOURNAL, lambda _text: None, checkambigfiles=localrepo.cachedfiles
    )


def _drop_torn_line(svfs: Any, name: bytes) -> None:
    """Cut a last line without its end: what it announces was not begun."""
    data = svfs.tryread(name)
    if data and not data.endswith(b"\n"):
        with svfs(name, b"r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def is_abandoned(copy: Copy) -> bool:
    """Tell, without the lock, whether a transaction lies there that nobody works on.

    The repository is opened only if there is one: nearly every session finds none.
    """
    root = generations.current_root(copy.directory)
    path = None if root is None else root / ".hg" / "store" / os.fsdecode(JOURNAL)
    return path is not None and path.exists() and not lock_guard.is_locked(copy.repo) and path.exists()
