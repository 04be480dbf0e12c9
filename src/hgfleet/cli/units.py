"""Which systemd units a host has, from its roles in the configuration.

Promises: one unit per `hgfleet run` of the host, in the order in which they should start.
Does not: install or start them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hgfleet.adapters.systemd_units import UnitOptions, render_unit, unit_name
from hgfleet.cli.addresses import ssh_listener, web_listener
from hgfleet.cli.first_start import is_path_short
from hgfleet.cli.fleet import Place
from hgfleet.cli.services import RUNNABLE_ROLES
from hgfleet.config.hosts import COPY_ROLES, Host
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import ConfigError

PRIVILEGED_PORTS = 1024


def host_runs(host: Host) -> list[str]:
    """Return the roles that `hgfleet run` is started with on a host; a mirror has web workers, too."""
    return [role for role in RUNNABLE_ROLES if ("mirror" if role == "web" else role) in host.roles]


def unit_texts(layout: FleetLayout, place: Place, user: str) -> dict[str, str]:
    """Return the text of each unit of this host by its file's name. Raises ConfigError."""
    host = layout.own_host
    if host is None:
        raise ConfigError("render.no-hosts", "the configuration names no hosts", hint="add [[hosts]] to it")
    if not is_path_short(layout.run_link):
        raise ConfigError(
            "config.path-too-long",
            "the path is too long for sockets",
            hint="set site.run_directory, to /run/hgfleet for example",
            path=layout.run_link,
        )
    return {unit_name(role): _text(layout, place, role, user) for role in host_runs(host)}


def _text(layout: FleetLayout, place: Place, role: str, user: str) -> str:
    config, host = layout.config, layout.agent_host
    is_copy = role in COPY_ROLES
    own = layout.own_host
    return render_unit(
        UnitOptions(
            role=role,
            host=host.name,
            site=config.site.name,
            program=Path(sys.executable).with_name("hgfleet"),
            config=place.config_path,
            user=user,
            writable=_writable(layout),
            after=[] if is_copy or own is None else [each for each in host_runs(own) if each in COPY_ROLES],
            has_low_ports=_port(layout, role) in range(1, PRIVILEGED_PORTS),
        )
    )


def _writable(layout: FleetLayout) -> list[Path]:
    """Return what the host's processes write: sockets, copies, logs, and parts that are files."""
    config = layout.config
    paths = [config.site.run_directory, config.site.hosts_directory, config.logs.path]
    if config.log.kind == "sqlite":
        paths.append(config.log.path.parent)
    if config.blobs.kind == "directory":
        paths.append(config.blobs.path)
    return paths


def _port(layout: FleetLayout, role: str) -> int:
    if role in {"primary", "standby"}:
        return ssh_listener(layout).port
    return web_listener(layout, layout.agent_host.name).port if role == "web" else 0
