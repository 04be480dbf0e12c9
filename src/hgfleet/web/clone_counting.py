"""Tells full clones from pulls, and counts what was cloned: by bundle, or from here and why.

Promises: a request is judged by its arguments alone; an answer is counted when it has ended, with the bytes
that were sent; counting never fails a request.
Does not: refuse clones (web.full_clones), or add up over hosts (model.demand).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters.demand_counts import DemandCounts
from hgfleet.model.bundle_manifest import ManifestEntry, Place
from hgfleet.model.demand import CloneReason, DemandCount, DemandKey
from hgfleet.model.ids import RepoId
from hgfleet.web.answers import Answer
from hgfleet.web.arguments import wire_arguments
from hgfleet.web.requests import Request

_NULL = b"0" * 40
_NOTHING = frozenset((_NULL, b""))
# Releases before 4.0 name no version (seen); 3.6, the first that knows bundles, uses them only when told to.
_SWITCHED_OFF = "mercurial/proto-1.0"


@dataclass(frozen=True, slots=True)
class FullClone:
    """A request for everything by a client that has nothing."""

    attempted: bool | None  # whether the client asked for the manifest before; None: it does not say
    is_switched_off: bool  # its release may be one that uses bundles only where that is switched on

    def reason(self, *, has_bundles: bool) -> CloneReason:
        """Return why it takes no bundle."""
        if not has_bundles:
            return CloneReason.NO_BUNDLES
        if self.attempted is None:
            return CloneReason.UNKNOWN
        if self.attempted:
            return CloneReason.TRIED
        return CloneReason.NOT_ENABLED if self.is_switched_off else CloneReason.BYPASSED


def parse_full_clone(request: Request, body: bytes) -> FullClone | None:
    """Return what a request for a full clone says; None for every other one."""
    if request.command not in _PARSERS:
        return None
    arguments = wire_arguments(request.environ, request.query, body)
    if not _PARSERS[request.command](arguments):
        return None
    attempted = arguments.get(b"cbattempted")
    agent = request.environ.get("HTTP_USER_AGENT", "")
    return FullClone(
        attempted=None if attempted is None else attempted == b"1",
        is_switched_off=agent == _SWITCHED_OFF,
    )


def _is_full_getbundle(arguments: dict[bytes, bytes]) -> bool:
    has_changesets = arguments.get(b"cg", b"1") != b"0"
    common, heads = (set(arguments.get(name, b"").split(b" ")) for name in (b"common", b"heads"))
    return has_changesets and common <= _NOTHING and heads != {_NULL}


def _is_full_changegroup(arguments: dict[bytes, bytes]) -> bool:
    roots = arguments.get(b"roots", arguments.get(b"bases"))
    return roots is not None and set(roots.split(b" ")) <= _NOTHING


def _is_full(_arguments: dict[bytes, bytes]) -> bool:
    return True


_PARSERS = {
    b"getbundle": _is_full_getbundle,
    b"changegroup": _is_full_changegroup,
    b"changegroupsubset": _is_full_changegroup,
    b"stream_out": _is_full,
}


class CloneCounter:
    """Counts into the host's file; any thread may."""

    def __init__(self, path: Path | None) -> None:
        self._counts = None if path is None else DemandCounts(path)

    def count_offer(self, repository: RepoId, place: Place, offered: Sequence[ManifestEntry]) -> None:
        """Count a client that was offered bundles; it is taken to fetch the first."""
        if offered:
            self._count(repository, place, CloneReason.BUNDLE, offered[0].size_bytes or 0)

    def follow(
        self, repository: RepoId, place: Place, reason: CloneReason, answered: Answer | Iterable[bytes]
    ) -> Answer | Iterable[bytes]:
        """Return the answer to a full clone, which is counted when it has been given."""
        if not isinstance(answered, Answer):
            return self._follow(repository, place, reason, answered)
        if answered.status.startswith("200"):
            self._count(repository, place, reason, len(answered.body))
        return answered

    def _follow(
        self, repository: RepoId, place: Place, reason: CloneReason, body: Iterable[bytes]
    ) -> Iterator[bytes]:
        sent = 0
        try:
            for chunk in body:
                sent += len(chunk)
                yield chunk
        finally:
            if hasattr(body, "close"):
                body.close()
            self._count(repository, place, reason, sent)

    def _count(self, repository: RepoId, place: Place, reason: CloneReason, size_bytes: int) -> None:
        if self._counts is not None:
            key = DemandKey(repository, place.key.strip("="), reason)
            self._counts.add(key, DemandCount(1, size_bytes))
