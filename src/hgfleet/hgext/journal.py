"""Rolls abandoned transactions back, as `hg recover` does, without a person.

Promises: only a transaction whose process is gone is touched: the caller holds the lock that it held.
Does not: bring back what the log has and the copy lost by it (hgext.recovery).
"""

from __future__ import annotations

from typing import Any

from mercurial import localrepo, transaction

from hgfleet.hgext import lock_guard

_JOURNAL = b"journal"


def recover_abandoned(repo: Any) -> bool:
    """Roll an abandoned transaction back; the caller holds the lock. Returns whether there was one."""
    unfiltered = repo.unfiltered()
    if not unfiltered.svfs.exists(_JOURNAL) or unfiltered.currenttransaction() is not None:
        return False
    transaction.rollback(
        unfiltered.svfs,
        unfiltered.vfs_map,
        _JOURNAL,
        lambda _text: None,
        checkambigfiles=localrepo.cachedfiles,
    )
    unfiltered.invalidate(clearfilecache=True)
    return True


def is_abandoned(repo: Any) -> bool:
    """Tell, without the lock, whether a transaction lies there that nobody works on."""
    svfs = repo.unfiltered().svfs
    return (
        bool(svfs.exists(_JOURNAL))
        and not lock_guard.is_locked(repo.unfiltered())
        and bool(svfs.exists(_JOURNAL))
    )
