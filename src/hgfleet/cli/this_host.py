"""Finds out which host of `[[hosts]]` this machine is.

Promises: --host wins over HGFLEET_HOST, and that over the machine's short host name; a name that the
configuration does not have is refused.
Does not: guess by addresses: several hosts of a trial may share a machine.
"""

from __future__ import annotations

import os
import socket

from hgfleet.config.hosts import find_host
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError
from hgfleet.model.ids import HostName

VARIABLE = "HGFLEET_HOST"


def find_this_host(config: FleetConfig, wanted: str | None) -> HostName | None:
    """Return this host's name; None where the whole fleet is on one machine. Raises ConfigError."""
    if not config.hosts:
        if wanted:
            raise ConfigError(
                "host.none", "the configuration names no hosts", hint="leave --host out", host=wanted
            )
        return None
    named = wanted or os.environ.get(VARIABLE, "")
    return find_host(config, named).name if named else _by_machine(config)


def _by_machine(config: FleetConfig) -> HostName:
    machine = socket.gethostname().partition(".")[0].lower()
    for host in config.hosts:
        if host.name in {machine, socket.gethostname().lower()}:
            return HostName(host.name)
    raise ConfigError(
        "host.not-named",
        "none of the configuration's hosts is called like this machine",
        hint=f"say which one it is with --host or {VARIABLE}",
        machine=machine,
    )
