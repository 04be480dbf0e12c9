"""Publishes what a host counted of clones, beside the work of its applier.

Promises: a record of the state topic now and then, and none while nothing has changed; nothing waits for it,
and what cannot be published is said by the next one.
Does not: count.
"""

from __future__ import annotations

import threading
from pathlib import Path

import structlog

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.demand_counts import DemandCounts
from hgfleet.errors import FleetError
from hgfleet.model.demand import DAY_SECONDS, Counts, Demand
from hgfleet.model.ids import HostName
from hgfleet.runtime import clock

_REPEAT_SECONDS = DAY_SECONDS / 4  # the same again before it is too old to count
_log = structlog.get_logger()


class DemandReporter(threading.Thread):
    """The thread that publishes, for one host."""

    def __init__(
        self,
        host: HostName,
        counts: Path,
        agent_socket: Path,
        interval_seconds: float,
        stop: threading.Event,
    ) -> None:
        super().__init__(name="demand", daemon=True)
        self._host = host
        self._counts = DemandCounts(counts)
        self._agent_socket = agent_socket
        self._interval_seconds = interval_seconds
        self._stop_event = stop
        self._said: Counts = {}
        self._said_at = 0.0

    def run(self) -> None:
        """Publish until told to stop."""
        with LogAgentClient(self._agent_socket) as client:
            while not self._stop_event.wait(self._interval_seconds):
                self._report(client)

    def _report(self, client: LogAgentClient) -> None:
        counts, now = self._counts.last_day(), clock.now()
        if counts == self._said and (not counts or now - self._said_at < _REPEAT_SECONDS):
            return
        demand = Demand(self._host, now, counts)
        try:
            client.state_publish({demand.key: dict(demand.value)})
        except FleetError as error:
            _log.info("demand.not-published", reason=str(error))
        else:
            self._said, self._said_at = counts, now
