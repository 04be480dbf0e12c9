"""Who may write where and who may create, with the reason that a person is told.

Promises: one rule for the gate, the session and `hgfleet access explain`; a disabled account may do nothing.
Does not: look accounts up, or judge reads: what mirrors serve is public.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hgfleet.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Access:
    """A decision and why; `reason` completes "you may (not) ... because"."""

    is_allowed: bool
    reason: str

    def require(self, code: str, message: str) -> None:
        """Raise RejectedError `code` unless allowed."""
        if not self.is_allowed:
            raise RejectedError(code, message, hint=self.reason, status=403)


def write_access(is_enabled: bool, groups: Iterable[str], writers: Iterable[str]) -> Access:
    """Decide whether an account may push: one of its groups is among the repository's writers."""
    return _membership(is_enabled, frozenset(groups), frozenset(writers), "writers of this repository")


def create_access(is_enabled: bool, groups: Iterable[str], creators: Iterable[str]) -> Access:
    """Decide whether an account may create repositories: one of its groups is among the site's creators."""
    return _membership(is_enabled, frozenset(groups), frozenset(creators), "creators of this site")


def _membership(is_enabled: bool, groups: frozenset[str], allowed: frozenset[str], who: str) -> Access:
    if not is_enabled:
        return Access(False, "the account is disabled")
    if not allowed:
        return Access(False, f"no group is among the {who}")
    shared = sorted(groups & allowed)
    if shared:
        return Access(True, f"the group {shared[0]} is among the {who}")
    return Access(False, f"none of the account's groups is among the {who}: {', '.join(sorted(allowed))}")
