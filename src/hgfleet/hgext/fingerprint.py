"""Computes a repository's fingerprint, during a transaction or from the disk.

Promises: the value depends on the state alone, not on the order of steps that led to it.
Does not: compare; what a difference means depends on who asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mercurial import encoding
from mercurial.node import hex as to_hex

from hgfleet.hgext import markers
from hgfleet.model.ids import NULL_NODE, Node
from hgfleet.model.state import Fingerprint, digest_lines


def take(repo: Any, pushes: int, tr: Any = None) -> Fingerprint:
    """Return the fingerprint with what `tr` will have done; `pushes` is the highest PushId then."""
    unfiltered = repo.unfiltered()
    changelog = unfiltered.changelog
    length = len(changelog)
    held = markers.held_by(tr)
    return Fingerprint(
        changelog_length=length,
        tip=Node(to_hex(changelog.node(length - 1)).decode()) if length else NULL_NODE,
        obsstore_bytes=held.end_bytes if held is not None else markers.store_size(unfiltered),
        phases=digest_lines(phase_lines(unfiltered)),
        bookmarks=digest_lines(bookmark_lines(unfiltered)),
        pushes=pushes,
    )


def phase_lines(repo: Any) -> Iterator[bytes]:
    """Yield one line per phase root.

    Mercurial may keep more roots than are needed, depending on how a state came about; those that say nothing
    (a parent has the same phase or a higher one) are left out, so equal phases give equal lines.
    """
    changelog, cache = repo.changelog, repo._phasecache
    for rev in sorted({rev for roots in cache._phaseroots.values() for rev in roots}):
        phase = cache.phase(repo, rev)
        if phase > max(cache.phase(repo, parent) for parent in changelog.parentrevs(rev)):
            yield b"%d %s" % (phase, to_hex(changelog.node(rev)))


def bookmark_lines(repo: Any) -> Iterator[bytes]:
    """Yield one line per bookmark."""
    for name, node in repo._bookmarks.items():
        yield b"%s %s" % (to_hex(node), encoding.fromlocal(name))
