"""Keeps the copies of a host warm that may become the primary: applied as on a mirror, shown to nobody.

While this host leads there is nothing to apply: sessions write its copies, and bring one that is behind to
the end of its log before they use it. So this process rests then, and a lost lead wakes it up.

Promises: it never joins the fleet, so no watermark waits for it; from when it notices that this host leads it
changes nothing more.
Does not: decide who leads (the log agent's candidate does).
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import structlog

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError
from hgfleet.model.ids import HostName
from hgfleet.replication.applier import ApplierOptions, run_applier
from hgfleet.runtime import clock

LOOK_SECONDS = 0.25  # between two looks at who leads
_ASK_SECONDS = 5.0
_log = structlog.get_logger()


def keep_warm(options: ApplierOptions, stop: threading.Event) -> None:
    """Apply from when another host leads until this one does, or until `stop` is set; then return.

    The caller starts it again: an applier's threads end with its process.
    """
    leads = _Lead(options.host, options.agent_socket)
    while leads.is_ours and not stop.is_set():
        clock.sleep(LOOK_SECONDS)
        leads.look()
    if stop.is_set():
        return
    _log.info("standby.warming")
    watch = threading.Thread(target=_stop_when_leading, args=(leads, stop), name="lead", daemon=True)
    watch.start()
    run_applier(replace(options, is_member=False), stop)


def _stop_when_leading(leads: _Lead, stop: threading.Event) -> None:
    while not stop.wait(LOOK_SECONDS):
        leads.look()
        if leads.is_ours:
            _log.info("standby.leading")
            stop.set()


class _Lead:
    """Whether this host owns the newest epoch, as far as it was last heard.

    An owner whose agent is just restarting is one, too: it will bid for the next epoch in a moment.
    """

    def __init__(self, host: HostName, agent_socket: Path) -> None:
        self._host = host
        self._client = LogAgentClient(agent_socket, _ASK_SECONDS)
        self.is_ours = True  # until the agent says otherwise, nothing is touched
        self.look()

    def look(self) -> None:
        """Ask again; without an answer it stays as it was."""
        try:
            owner = self._client.status()["catalogue"]["owner"]
        except FleetError:
            return
        self.is_ours = owner in {"", self._host}
