"""When the cache of changesets' branches reaches the disk: seldom on a mirror, else after the session.

Mercurial writes it in every transaction that adds a changeset, under a lock of its own: eight bytes for a
tenth of the work of a small push. Whoever finds less in it than there are changesets reads the few that are
missing.

Promises: the file is at most MOST_UNWRITTEN changesets behind what a worker has applied.
Does not: change what the cache says.
"""

from __future__ import annotations

from typing import Any

from mercurial import extensions
from mercurial.branching import rev_cache

from hgfleet.hgext import session_context

MOST_UNWRITTEN = 16


def uisetup() -> None:
    """Have the cache written later; called once per process."""
    extensions.wrapfunction(rev_cache.revbranchcache, "write", _write)


def _write(orig: Any, cache: Any, tr: Any = None) -> None:
    bound = getattr(cache._repo, "hgfleet", None)
    if bound is None or tr is None:
        orig(cache, tr)
    elif bound.is_applying and bound.options.role == "mirror":
        if _unwritten(cache) >= MOST_UNWRITTEN:
            orig(cache, tr)
    elif bound.is_applying or not session_context.put_off("branches", lambda: orig(cache)):
        orig(cache, tr)


def _unwritten(cache: Any) -> int:
    return len(cache._repo.changelog) - int(cache._rbcrevslen)
