"""What readers of a mirror get to see: exposure follows the watermarks, and what nobody can need is let go.

Promises: nothing is exposed beyond its watermark or back again; a path appears when there is something to
show for it; a deleted repository stays until no path leads to it and its last readers had time to finish.
Does not: apply (mirror_work) or say anything to the fleet: it notes in `changed` what there is to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from hgfleet.errors import InvariantError, TransientError
from hgfleet.model.fleet import FleetView
from hgfleet.model.ids import CATALOGUE, RepoId, Seq
from hgfleet.model.membership import exposable
from hgfleet.replication import exposure
from hgfleet.replication.mirror_copies import Copies, Copy
from hgfleet.replication.mirror_paths import MirrorPaths
from hgfleet.runtime.faults import Faults

PATH_PATIENCE_SECONDS = 1.0  # a new path waits so long for its repository's first exposure
PRUNE_SECONDS = 10.0  # views stay at least so long after they were replaced
REMOVALS_SECONDS = 0.5  # between two looks at what may be removed
RETRY_SECONDS = 0.5  # after a disk that did not take a step
_log = structlog.get_logger()


@dataclass(slots=True)
class _Blocked:
    repository: RepoId
    since: float


class MirrorShowing:
    """Exposure of copies and of the catalogue. `park` refuses a copy that cannot be shown."""

    def __init__(
        self,
        repositories: Path,
        copies: Copies,
        paths: MirrorPaths,
        faults: Faults,
        park: Callable[[Copy, str], None],
    ) -> None:
        self._repositories = repositories
        self._copies = copies
        self._paths = paths
        self._faults = faults
        self._park = park
        self._ripe: set[RepoId] = set()
        self._retry_at: float | None = None
        self._blocked: _Blocked | None = None
        self._replaced: dict[RepoId, Seq] = {}
        self._next_prune_at = 0.0
        self._next_removals_at = 0.0
        self._removal_at: dict[RepoId, float] = {}
        self.changed: set[RepoId] = set()

    def consider(self, repository: RepoId) -> None:
        """Look at a copy in the next turn: it was applied further, or its watermark moved."""
        self._ripe.add(repository)

    def consider_all(self) -> None:
        """Look at every copy in the next turn."""
        self._ripe.update(copy.repository for copy in self._copies)

    def turn(self, view: FleetView, now: float) -> None:
        """Expose what may be exposed now."""
        if self._retry_at is None or now >= self._retry_at:
            self._retry_at = None
            self._expose_copies(view, now)
        self._expose_catalogue(view, now)
        self._prune(now)

    def allow_removals(self, grace_seconds: float, now: float) -> None:
        """Let deleted copies go whose path was unbound here a while ago."""
        if now < self._next_removals_at:
            return
        self._next_removals_at = now + REMOVALS_SECONDS
        for copy in self._copies:
            if copy.is_held and not copy.may_delete and not self._paths.is_needed(copy.repository):
                at = self._removal_at.setdefault(copy.repository, now + grace_seconds)
                if now >= at:
                    del self._removal_at[copy.repository]
                    copy.may_delete = True
                    self._copies.wake(copy)

    # ---- copies

    def _expose_copies(self, view: FleetView, now: float) -> None:
        ripe, self._ripe = self._ripe, set()
        for repository in ripe:
            copy = self._copies.get(repository)
            if copy is not None and _is_shown(copy):
                self._expose_copy(copy, view.watermark(repository), now)

    def _expose_copy(self, copy: Copy, watermark: Seq, now: float) -> None:
        wanted = exposable(copy.applied, copy.exposed, watermark)
        if wanted <= copy.exposed:
            return
        try:
            self._faults.reach("applier-before-expose")
            exposed = exposure.expose_up_to(self._repositories / copy.repository, wanted)
            self._faults.reach("applier-after-expose")
        except OSError as error:
            _log.warning("applier.expose-failed", repository=copy.repository, reason=str(error))
            self._ripe.add(copy.repository)
            self._retry_at = now + RETRY_SECONDS
            return
        except (InvariantError, TransientError) as error:
            self._park(copy, f"{error.code}: {error}")
            return
        if exposed > copy.exposed:
            copy.exposed = exposed
            self._replaced.setdefault(copy.repository, Seq(0))
            self.changed.add(copy.repository)

    def _prune(self, now: float) -> None:
        """Remove the views below what was exposed at the pass before this one."""
        if now < self._next_prune_at:
            return
        self._next_prune_at = now + PRUNE_SECONDS
        for repository, below in list(self._replaced.items()):
            copy = self._copies.get(repository)
            if copy is None or copy.is_deleted or copy.is_busy:
                continue
            if below:
                exposure.prune_views(self._repositories / repository, below)
            if below == copy.exposed:
                del self._replaced[repository]
            else:
                self._replaced[repository] = copy.exposed

    # ---- the catalogue

    def _expose_catalogue(self, view: FleetView, now: float) -> None:
        try:
            is_changed = self._paths.expose(view.watermark(CATALOGUE), lambda r: self._is_showable(r, now))
        except TransientError as error:
            _log.warning("applier.expose-failed", repository=CATALOGUE, reason=str(error))
            return
        if is_changed:
            self._blocked = None
            self.changed.add(CATALOGUE)

    def _is_showable(self, repository: RepoId, now: float) -> bool:
        copy = self._copies.get(repository)
        if copy is not None and (copy.exposed > 0 or copy.parked or copy.is_deleted):
            return True
        if self._blocked is None or self._blocked.repository != repository:
            self._blocked = _Blocked(repository, now)
        return now - self._blocked.since >= PATH_PATIENCE_SECONDS


def _is_shown(copy: Copy) -> bool:
    is_refused = bool(copy.parked) and not copy.is_returning
    return copy.is_checked and not copy.is_deleted and not is_refused
