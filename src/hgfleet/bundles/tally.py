"""What a bundler has found wrong, by repository, until it is found right.

Promises: what is told is of the last look at each repository; one that is deleted is forgotten.
Does not: log (bundles.bundler), or outlive the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from hgfleet.adapters.bundler_status import BundlerStatus
from hgfleet.model.ids import RepoId


@dataclass(slots=True)
class Tally:
    """One bundler's."""

    _failing: dict[RepoId, frozenset[str]] = field(default_factory=dict)  # at which stores; (): all of it
    _unreachable: dict[RepoId, int] = field(default_factory=dict)
    _gone: int = 0

    def note_run(self, repository: RepoId, *, is_failed: bool, stores: Iterable[str] = ()) -> None:
        """Note how an attempt for a repository ended, and at which stores it failed."""
        if is_failed:
            self._failing[repository] = frozenset(stores)
        else:
            self._failing.pop(repository, None)

    def note_check(self, repository: RepoId, *, unreachable: int, gone: int) -> None:
        """Note what a check found."""
        self._unreachable[repository] = unreachable
        self._gone += gone

    def keep_only(self, repositories: Set[RepoId]) -> None:
        """Forget the others."""
        for known in (self._failing, self._unreachable):
            for repository in known.keys() - repositories:
                del known[repository]

    def status(self, looked_at: float) -> BundlerStatus:
        """Return all of it."""
        stores = Counter(name for names in self._failing.values() for name in names)
        return BundlerStatus(
            looked_at=looked_at,
            failing=len(self._failing),
            failing_by_store=dict(stores),
            unreachable=sum(self._unreachable.values()),
            gone=self._gone,
        )
