"""Obsmarkers, held back in memory until the transaction's finalizers.

Stock Mercurial appends markers to the obsstore the moment they are added: readers then hide a changeset whose
successor is not there yet, and a crash leaves it so. Here the store of a hgfleet repository has them in
memory at once, so the transaction itself sees them, and on disk only after the changelog.

Promises: before the finalizers nothing of a marker is on disk; what is appended then are the bytes that the
change's payload carries, so all copies' obsstores are equal.
Does not: show markers to external hooks, which read the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mercurial import error, obsolete

from hgfleet.errors import PoisonError

_STORE = b"obsstore"
_FINALIZER = b"001-hgfleet-obsstore"  # after 000-cl-*, which makes the successors visible


class HeldMarkers:
    """The markers of one transaction that are not on disk yet."""

    def __init__(self, start_bytes: int) -> None:
        self.start_bytes = start_bytes  # the obsstore's size when the transaction began to hold
        self._parts: list[bytes] = []

    @property
    def data(self) -> bytes:
        """What will be appended, with the version byte when the obsstore is new."""
        return b"".join(self._parts)

    @property
    def end_bytes(self) -> int:
        """The obsstore's size after the finalizers."""
        return self.start_bytes + sum(map(len, self._parts))

    def hold(self, data: bytes) -> None:
        """Keep more bytes for the end."""
        self._parts.append(data)


def store_size(repo: Any) -> int:
    """Return the obsstore's size on disk."""
    try:
        return int(repo.svfs.stat(_STORE).st_size)
    except FileNotFoundError:
        return 0


def held_by(tr: Any) -> HeldMarkers | None:
    """Return the transaction's held markers, None when there are none."""
    return getattr(tr, "hgfleet_markers", None)


def added_suffix(repo: Any, tr: Any) -> tuple[int, bytes] | None:
    """Return (format version, raw bytes without it) of what the transaction adds; None when nothing."""
    held = held_by(tr)
    if held is None or not held.data:
        return None
    data = held.data
    return repo.obsstore._version, data if held.start_bytes else data[1:]


def add(orig: Callable[..., int], store: Any, tr: Any, markers: Iterable[Any]) -> int:
    """Stand in for `obsstore.add`: the same, but for when the bytes reach the disk."""
    if getattr(store.repo, "hgfleet", None) is None:
        return orig(store, tr, markers)
    if store._readonly:
        raise error.Abort(b"creating obsolete markers is not enabled on this repo")
    new = _unknown(store, markers)
    if new:
        held = _held(store.repo, tr)
        data = b"".join(obsolete.encodemarkers(new, held.end_bytes == 0, store._version))
        _take(store, tr, held, new, data)
    previous = int(tr.hookargs.get(b"new_obsmarkers", b"0"))
    tr.hookargs[b"new_obsmarkers"] = b"%d" % (previous + len(new))
    return len(new)


def add_raw(repo: Any, tr: Any, version: int, suffix: bytes) -> None:
    """Append another copy's bytes as they are; raise PoisonError when they do not fit."""
    held = _held(repo, tr)
    store = repo.obsstore
    head = bytes((version,))
    if held.end_bytes and store._version != version:
        raise PoisonError("payload.obsmarkers", "obsmarkers of another format version", version=version)
    try:
        markers = list(obsolete._readmarkers(head + suffix)[1])
    except (ValueError, IndexError, error.Abort) as exc:
        raise PoisonError("payload.obsmarkers", "damaged obsmarkers") from exc
    if not held.end_bytes:
        store._version = version
    _take(store, tr, held, markers, suffix if held.end_bytes else head + suffix)


def _unknown(store: Any, markers: Iterable[Any]) -> list[Any]:
    successors = store.successors.get
    return [marker for marker in dict.fromkeys(markers) if marker not in successors(marker[0], ())]


def _held(repo: Any, tr: Any) -> HeldMarkers:
    held = held_by(tr)
    if held is None:
        held = tr.hgfleet_markers = HeldMarkers(store_size(repo))
        svfs = repo.svfs
        tr.addfinalize(_FINALIZER, lambda tr2: _flush(svfs, tr2))
    return held


def _take(store: Any, tr: Any, held: HeldMarkers, markers: list[Any], data: bytes) -> None:
    held.hold(data)
    tr.changes[b"obsmarkers"].update(markers)
    store._addmarkers(markers, data)
    store.caches.clear()


def _flush(svfs: Any, tr: Any) -> None:
    held = held_by(tr)
    if held is None or not held.data:
        return
    with svfs(_STORE, b"ab") as file:
        tr.add(_STORE, file.tell())
        file.write(held.data)
