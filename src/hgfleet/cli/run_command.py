"""`hgfleet run ROLE`: the processes of one role of this host, in the foreground, for systemd.

Promises: one run of a role per host; its processes are restarted when they end, for as long as it takes;
READY=1 is sent once all of them answer, STOPPING=1 when told to stop; SIGTERM lets what is in hand be
finished and exits 0; killed in any way, its processes end with it. They read the configuration as it was at
the start.
Does not: run on a host that the configuration gives another role, make certificates or keys, or daemonize.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hgfleet.adapters.endpoints import ProcessEntry, write_processes
from hgfleet.adapters.files import write_by_rename
from hgfleet.adapters.log_files import LogCollector, Rotation
from hgfleet.adapters.systemd_notify import READY, STOPPING, notify, without_manager
from hgfleet.cli.first_start import make_host_directories, make_run_directory
from hgfleet.cli.fleet import Place, place_options
from hgfleet.cli.rendered_files import write_session_files
from hgfleet.cli.services import RUNNABLE_ROLES, ServiceMaker, list_role_services
from hgfleet.cli.supervisor import Supervisor
from hgfleet.cli.this_host import find_this_host
from hgfleet.cli.up_command import ALLOW_FAULTS
from hgfleet.config.hosts import Host
from hgfleet.config.layout import FleetLayout
from hgfleet.config.load import override, parse_config, read_tables
from hgfleet.config.render import render_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError, RejectedError
from hgfleet.runtime.lifecycle import stop_on_signals
from hgfleet.runtime.observability import configure_logging


@click.command("run")
@click.argument("role", type=click.Choice(RUNNABLE_ROLES))
@place_options
def run_command(place: Place, role: str) -> None:
    """Run ROLE on this host until told to stop."""
    layout = _layout(place)
    host = layout.own_host
    if host is None:
        raise ConfigError("run.no-hosts", "the configuration names no hosts", hint="add [[hosts]] to it")
    _check_role(host, role)
    make_run_directory(layout)
    make_host_directories(layout)
    with _only_one(layout, role):
        _run(place, layout, role)


def _run(place: Place, layout: FleetLayout, role: str) -> None:
    stop = stop_on_signals()
    config, config_file = layout.config, layout.role_config(role)
    logs = LogCollector(layout.logs, Rotation(config.logs.file_size_bytes, config.logs.files_kept))
    configure_logging(f"run-{role}", config.logs.level, os.fdopen(logs.open(f"run-{role}"), "w"))
    _write_files(layout, role, config_file)
    make = ServiceMaker(layout, config_file, place.directory, without_manager(os.environ))
    services = list_role_services(make, role, layout.agent_host.name)

    def report(processes: tuple[ProcessEntry, ...]) -> None:
        write_processes(layout.role_processes(role), processes)

    supervisor = Supervisor(services, logs, report)
    click.echo(f"starting {len(services)} processes of {layout.own}; their logs are in {layout.logs}")
    try:
        _supervise(supervisor, stop)
    finally:
        notify(os.environ, STOPPING)
        supervisor.stop()
        logs.close()


def _supervise(supervisor: Supervisor, stop: threading.Event) -> None:
    if supervisor.bring_up(stop, None):
        click.echo("ready")
        notify(os.environ, READY)
        supervisor.watch(stop)


def _layout(place: Place) -> FleetLayout:
    tables = read_tables(place.config_path)
    if os.environ.get(ALLOW_FAULTS) == "1":
        tables = override(tables, {("testing", "allow_faults"): True})
    config = parse_config(tables, place.config_path)
    return FleetLayout(config, find_this_host(config, place.host))


def _check_role(host: Host, role: str) -> None:
    """Refuse what the configuration does not have here; web workers are a mirror's."""
    named = "mirror" if role == "web" else role
    if named not in host.roles:
        raise RejectedError(
            "run.other-role",
            f"the configuration does not give {host.name} the role {named}",
            hint=f"it has {', '.join(sorted(host.roles))}",
        )


def _write_files(layout: FleetLayout, role: str, config_file: Path) -> None:
    """Write what the processes read, and see that what they need is there."""
    write_by_rename(config_file, render_config(layout.config).encode())
    needed: list[tuple[str, Path]] = []
    if role in {"primary", "standby"}:
        write_session_files(layout)
        needed = _needed_by_ssh(layout.config)
    if role == "web":
        http = layout.config.http
        needed = [("http.certificate", http.certificate), ("http.key", http.key)]
    for key, path in needed:
        if not path.is_file():
            raise ConfigError(
                "run.missing-file", f"the file that {key} names is not there", hint=_hint(key), path=path
            )


def _needed_by_ssh(config: FleetConfig) -> list[tuple[str, Path]]:
    return [("ssh.host_key", config.ssh.host_key)]


def _hint(key: str) -> str:
    if key == "ssh.host_key":
        return "make it with ssh-keygen -t ed25519, and copy it to the primary and every standby"
    return "put the site's certificate there, on every mirror"


@contextmanager
def _only_one(layout: FleetLayout, role: str) -> Iterator[None]:
    """Hold the role on this host; raise RejectedError `run.running` when another process does."""
    descriptor = os.open(layout.role_lock(role), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RejectedError("run.running", f"{role} runs on this host already", host=layout.own) from error
    try:
        yield
    finally:
        os.close(descriptor)
