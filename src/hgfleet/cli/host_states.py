"""Asks the hosts of a fleet for their status, each through its admin listener, all at once.

Promises: a host that does not answer is told with the reason; nobody waits longer than the time-out.
Does not: judge what they say (doctor_hosts), or ask anything of a fleet on one machine.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from hgfleet.config.hosts import COPY_ROLES, Host, list_hosts
from hgfleet.config.schema import FleetConfig
from hgfleet.runtime import clock

ASK_SECONDS = 5.0
_THREADS = 16


@dataclass(frozen=True, slots=True)
class Told:
    """What a host said of itself, and how far its clock is from ours; `state` None: it said nothing."""

    host: str
    state: Mapping[str, Any] | None
    clock_seconds: float = 0.0
    reason: str = ""


def ask_hosts(config: FleetConfig, timeout_seconds: float = ASK_SECONDS) -> list[Told]:
    """Ask every host that has an admin listener, in the configuration's order."""
    hosts = [host for host in list_hosts(config) if host.roles.intersection(COPY_ROLES)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_ask, timeout_seconds), hosts))


def _ask(timeout_seconds: float, host: Host) -> Told:
    connection = http.client.HTTPConnection(host.address, host.admin_port, timeout=timeout_seconds)
    asked_at = clock.now()
    try:
        connection.request("GET", "/-/status", headers={"Connection": "close"})
        state = json.loads(connection.getresponse().read())
        said_at = float(state.get("at", asked_at))
    except (OSError, http.client.HTTPException, ValueError, TypeError, AttributeError) as error:
        return Told(host.name, None, reason=str(error) or type(error).__name__)
    finally:
        connection.close()
    return Told(host.name, state, clock_difference(said_at, asked_at, clock.now()))


def clock_difference(said_at: float, asked_at: float, answered_at: float) -> float:
    """Return how far a clock is off that was read at some time while we waited: what lies outside of that."""
    return min(said_at - asked_at, 0.0) + max(said_at - answered_at, 0.0)
