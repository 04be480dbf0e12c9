"""When a bundler checks and renews what: by its own clock, beginning anew with each life.

Promises: after a start everything is asked for once, soon; whole files are read as often as that is due since
they were made, whoever made them.
Does not: check (bundles.checking).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hgfleet.model.ids import RepoId

RENEWALS_PER_EXPIRY = 4


@dataclass(frozen=True, slots=True)
class CheckPolicy:
    """How often."""

    check_seconds: float = 3600.0  # between two looks at every URL's head
    verify_seconds: float = 24 * 3600.0  # between two readings of every URL's bytes


@dataclass(frozen=True, slots=True)
class ChecksDue:
    """What is to be done for a repository now."""

    is_check: bool
    is_whole: bool
    is_renewal: bool


@dataclass(slots=True)
class CheckTimes:
    """What one bundler remembers; times are Unix seconds, as those of manifests are."""

    policy: CheckPolicy
    _checked_at: dict[RepoId, float] = field(default_factory=dict)
    _verified_at: dict[RepoId, float] = field(default_factory=dict)
    _renewed_at: dict[RepoId, float] = field(default_factory=dict)
    _unreachable: dict[RepoId, frozenset[str]] = field(default_factory=dict)

    def due(self, repository: RepoId, made_at: float, expiry_seconds: float, now: float) -> ChecksDue:
        """Return what is due; `expiry_seconds` is the shortest of the stores', 0.0 where nothing expires."""
        verified_at = max(made_at, self._verified_at.get(repository, 0.0))
        renewed_at = max(made_at, self._renewed_at.get(repository, 0.0))
        is_whole = now - verified_at >= self.policy.verify_seconds
        is_check = now - self._checked_at.get(repository, 0.0) >= self.policy.check_seconds
        is_renewal = 0 < expiry_seconds <= RENEWALS_PER_EXPIRY * (now - renewed_at)
        return ChecksDue(is_check or is_whole, is_whole, is_renewal)

    def note_check(self, repository: RepoId, now: float, *, is_whole: bool, unreachable: set[str]) -> None:
        """Note what was asked, and which URLs could not be."""
        self._checked_at[repository] = now
        self._unreachable[repository] = frozenset(unreachable)
        if is_whole and not unreachable:
            self._verified_at[repository] = now

    def note_renewal(self, repository: RepoId, now: float) -> None:
        """Note that everything was renewed."""
        self._renewed_at[repository] = now

    def unreachable(self, repository: RepoId) -> frozenset[str]:
        """Return the URLs that could not be asked at the last look."""
        return self._unreachable.get(repository, frozenset())
