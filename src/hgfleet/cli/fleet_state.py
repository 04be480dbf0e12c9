"""The state of a whole fleet as `hgfleet status` and the admin listener show it.

Promises: asked from the log agent alone, so it is the same on every host; what cannot be known is said in
`problems`, never left out silently.
Does not: judge, or remember anything between two questions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from hgfleet.adapters.agent_answers import StateEnd
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.bundler_status import read_bundler_status
from hgfleet.adapters.directory_status import read_directory_status
from hgfleet.adapters.endpoints import read_endpoints, read_processes
from hgfleet.cli.fleet import Fleet
from hgfleet.cli.services import RUNNABLE_ROLES
from hgfleet.config.render import config_values
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import FleetError
from hgfleet.model.fleet import FleetView
from hgfleet.replication.fleet_status import describe_fleet
from hgfleet.runtime import clock


def read_fleet_state(fleet: Fleet) -> dict[str, Any]:
    """Ask for everything; blocks for a few milliseconds, longer when parts do not answer."""
    state: dict[str, Any] = {
        "release": version("hgfleet"),
        "configuration_digest": configuration_digest(fleet.config),
        "at": clock.now(),
        "problems": [],
    }
    for part in (_processes, _agent, _members, _directory, _bundler):
        try:
            state |= part(fleet)
        except FleetError as error:
            state["problems"].append(str(error))
    return state


def configuration_digest(config: FleetConfig) -> str:
    """Return what differs between two hosts exactly when their settings do."""
    return hashlib.sha256(json.dumps(config_values(config), sort_keys=True).encode()).hexdigest()


def read_view(agent: LogAgentClient) -> FleetView:
    """Fold the state topic up to its present end."""
    view = FleetView()
    with agent.state_follow() as events:
        for event in events:
            if isinstance(event, StateEnd):
                break
            for item in event.records:
                view.take(item.key, item.value, item.offset)
    return view


def _processes(fleet: Fleet) -> dict[str, Any]:
    layout = fleet.layout
    if layout.own is None:
        return {"processes": read_endpoints(fleet.place.directory)["processes"]}
    files = [layout.role_processes(role) for role in RUNNABLE_ROLES]
    return {"host": layout.own, "processes": [entry for file in files for entry in read_processes(file)]}


def _agent(fleet: Fleet) -> dict[str, Any]:
    with fleet.agent() as agent:
        hello = asdict(agent.hello())
        details = {name: value for name, value in agent.status().items() if name != "ok"}
        paths, catalogue_seq = agent.paths()
    return {"log": hello | details, "repositories": len(paths), "catalogue_seq": catalogue_seq}


def _members(fleet: Fleet) -> dict[str, Any]:
    with fleet.agent() as agent:
        return describe_fleet(read_view(agent))


def _bundler(fleet: Fleet) -> dict[str, Any]:
    status = read_bundler_status(fleet.layout.bundler_status)
    return {"bundler": status} if status is not None else {}


def _directory(fleet: Fleet) -> dict[str, Any]:
    status = read_directory_status(fleet.layout.directory_status)
    return {"directory": status} if status is not None else {}
