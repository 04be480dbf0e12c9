"""How often each repository is cloned, as the bundler last heard.

Promises: an agent that does not answer changes nothing: what was heard before still counts.
Does not: count.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.errors import FleetError
from hgfleet.model.demand import clones_a_day
from hgfleet.model.ids import RepoId

_log = structlog.get_logger()


class CloneRates:
    """The rates of one bundler."""

    def __init__(self) -> None:
        self._clones: Mapping[RepoId, int] = {}

    def __call__(self, repository: RepoId) -> float:
        """Return how often the repository was cloned in the last day."""
        return float(self._clones.get(repository, 0))

    def refresh(self, client: BundleClient) -> None:
        """Ask the agent."""
        try:
            self._clones = clones_a_day(client.demand())
        except FleetError as error:
            _log.info("bundles.demand-not-heard", reason=str(error))
