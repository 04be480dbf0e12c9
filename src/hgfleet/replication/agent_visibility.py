"""Waits until every mirror in service shows a change.

Promises: a mirror that made somebody wait in vain is not waited for again until it shows what was waited for;
nor is anybody, while no mirror is in service, after one wait for that was in vain.
Does not: decide who is in service (model.fleet).
"""

from __future__ import annotations

from hgfleet.model.fleet import Visibility
from hgfleet.model.ids import HostName, RepoId, Seq
from hgfleet.replication.agent_view import AgentView


class VisibilityDesk:
    """Everybody who waits, and the mirrors that are known to be late."""

    def __init__(self, view: AgentView) -> None:
        self._view = view
        self._owed_by_laggard: dict[HostName, tuple[RepoId, Seq]] = {}
        self._is_service_awaited_in_vain = False

    async def wait(self, repository: RepoId, seq: Seq, timeout_seconds: float) -> Visibility:
        """Return once it is visible, the time is over, or only laggards are missing."""
        is_settled = await self._view.until(lambda: self._is_over(repository, seq), timeout_seconds)
        visibility = self._view.fleet.visible(repository, seq)
        if not is_settled:
            self._is_service_awaited_in_vain = not visibility.late
            for host in visibility.late:
                self._owed_by_laggard.setdefault(host, (repository, seq))
        return visibility

    def _is_over(self, repository: RepoId, seq: Seq) -> bool:
        visibility = self._view.fleet.visible(repository, seq)
        if visibility.is_visible:
            return True
        if visibility.late or visibility.mirrors:
            self._is_service_awaited_in_vain = False
            return bool(visibility.late) and set(visibility.late) <= self._laggards()
        return self._is_service_awaited_in_vain

    def _laggards(self) -> set[HostName]:
        """Return who is still late with what it was late with."""
        for host, owed in list(self._owed_by_laggard.items()):
            if host not in self._view.fleet.visible(*owed).late:
                del self._owed_by_laggard[host]
        return set(self._owed_by_laggard)
