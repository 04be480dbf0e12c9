"""`hgfleet up`: a whole fleet on one machine, in the foreground.

Promises: `ready` is printed on a line of its own once a push and a clone work; a second `up` on the same
directory is refused; SIGINT and SIGTERM stop everything and exit 0; killed in any way, its processes end with
it; a later start on the same directory goes on with what is there.
Does not: daemonize, or change the configuration file: options count for this run.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.endpoints import Endpoints, MirrorEndpoint, ProcessEntry, SshEndpoint, write_endpoints
from hgfleet.adapters.files import write_by_rename
from hgfleet.adapters.log_files import LogCollector, Rotation
from hgfleet.cli.addresses import LOOPBACK, has_proxy, mirror_addresses, ssh_host
from hgfleet.cli.first_start import Credentials, make_directory, make_files, make_run_directory
from hgfleet.cli.fleet import Place, place_options
from hgfleet.cli.ports import WantedPort, resolve_ports
from hgfleet.cli.rendered_files import write_rendered_files
from hgfleet.cli.services import list_services
from hgfleet.cli.supervisor import Supervisor
from hgfleet.cli.this_host import find_this_host
from hgfleet.cli.up_text import describe_fleet
from hgfleet.config.layout import FleetLayout
from hgfleet.config.load import override, parse_config, read_tables
from hgfleet.config.render import render_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import RejectedError, TransientError
from hgfleet.runtime.lifecycle import stop_on_signals
from hgfleet.runtime.observability import configure_logging

ALLOW_FAULTS = "HGFLEET_ALLOW_FAULTS"  # for tests: the same as testing.allow_faults in the file
_START_SECONDS = 120.0
_ASK_SECONDS = 5.0
Changes = dict[tuple[str, str], object]


@click.command("up")
@place_options
@click.option("--mirrors", type=int, metavar="N", help="how many mirrors")
@click.option("--bind", metavar="ADDRESS", help="address of the SSH, HTTP and HTTPS ports")
@click.option("--ssh-port", type=int, metavar="P", help="default 2222")
@click.option("--http-port", type=int, metavar="P", help="plain port, redirects; default 8080")
@click.option("--https-port", type=int, metavar="P", help="default 8443")
@click.option("--admin-port", type=int, metavar="P", help="status and metrics; default 8090")
def up_command(place: Place, **options: object) -> None:
    """Run a fleet on this machine until interrupted. A port 0 takes a free one."""
    directory = place.directory
    make_directory(directory, place.config_path)
    with _only_one(directory):
        config = _effective_config(place, _changes(options))
        layout = FleetLayout(config)
        credentials = make_files(layout, directory)
        write_rendered_files(layout)
        _run(directory, layout, credentials)


def _run(directory: Path, layout: FleetLayout, credentials: Credentials) -> None:
    stop = stop_on_signals()
    config = layout.config
    endpoints = make_endpoints(config, credentials)
    logs = LogCollector(layout.logs, Rotation(config.logs.file_size_bytes, config.logs.files_kept))
    configure_logging("up", config.logs.level, os.fdopen(logs.open("up"), "w"))

    def report(processes: tuple[ProcessEntry, ...]) -> None:
        write_endpoints(directory, endpoints.with_processes(processes))

    services = list_services(layout, directory, os.environ)
    supervisor = Supervisor(services, logs, report)
    click.echo(f"starting {len(services)} processes; their logs are in {layout.logs}")
    try:
        if supervisor.bring_up(stop, _START_SECONDS):
            click.echo(describe_fleet(config, endpoints, directory, _taken_paths(layout)))
            click.echo("ready")
            supervisor.watch(stop)
    finally:
        supervisor.stop()
        layout.effective_config.unlink(missing_ok=True)
        logs.close()


def _taken_paths(layout: FleetLayout) -> set[str]:
    """Return the paths that have a repository; none if the log agent has no time for the example's sake."""
    try:
        with LogAgentClient(layout.agent_socket, _ASK_SECONDS) as agent:
            return {bound.path for bound in agent.paths()[0]}
    except TransientError:
        return set()


def _changes(options: Mapping[str, object]) -> Changes:
    """Return the settings that the command line and the environment change for this run."""
    places = {
        "mirrors": [("mirrors", "count")],
        "bind": [("ssh", "bind"), ("http", "bind")],
        "ssh_port": [("ssh", "port")],
        "http_port": [("http", "http_port")],
        "https_port": [("http", "https_port")],
        "admin_port": [("admin", "port")],
    }
    changes: Changes = {
        place: value for option, value in options.items() if value is not None for place in places[option]
    }
    if os.environ.get(ALLOW_FAULTS) == "1":
        changes["testing", "allow_faults"] = True
    return changes


def _effective_config(place: Place, changes: Changes) -> FleetConfig:
    """Return this run's configuration with every port resolved, and write it where the processes read it."""
    tables = override(read_tables(place.config_path), changes)
    config = parse_config(tables, place.config_path)
    if config.hosts:
        raise RejectedError(
            "up.hosts",
            "the configuration names hosts, and `hgfleet up` runs everything on one machine",
            hint="start each host's roles with `hgfleet run`",
        )
    find_this_host(config, place.host)
    ports = _resolved(config)
    config = parse_config(override(tables, ports), place.config_path)
    layout = FleetLayout(config)
    make_run_directory(layout)
    write_by_rename(layout.effective_config, render_config(config).encode())
    return config


def _resolved(config: FleetConfig) -> Changes:
    http = config.http
    wanted = [
        WantedPort("ssh", "port", "SSH", config.ssh.bind, config.ssh.port, "--ssh-port"),
        WantedPort("http", "http_port", "plain HTTP", http.bind, http.http_port, "--http-port"),
        WantedPort("http", "https_port", "HTTPS", http.bind, http.https_port, "--https-port"),
        WantedPort(
            "admin", "port", "status and metrics", config.admin.bind, config.admin.port, "--admin-port"
        ),
    ]
    mirrors = [
        WantedPort("mirrors", str(number), f"mirror{number}", LOOPBACK, port, "mirrors.ports")
        for number, port in enumerate(_mirror_ports(config), start=1)
    ]
    numbers = resolve_ports([*wanted, *mirrors])
    changes: Changes = {
        (want.table, want.key): number for want, number in zip(wanted, numbers[: len(wanted)], strict=True)
    }
    changes["mirrors", "ports"] = numbers[len(wanted) :]
    return changes


def _mirror_ports(config: FleetConfig) -> list[int]:
    if not has_proxy(config):
        return []
    return list(config.mirrors.ports) or [0] * config.mirrors.count


def make_endpoints(config: FleetConfig, credentials: Credentials) -> Endpoints:
    """Return what endpoints.json says about this run, but for its processes."""
    http = config.http
    return Endpoints(
        ssh=SshEndpoint(ssh_host(config), config.ssh.port, str(credentials.known_hosts)),
        http=f"http://localhost:{http.http_port}",
        https=f"https://localhost:{http.https_port}",
        admin=f"http://localhost:{config.admin.port}",
        mirrors=tuple(MirrorEndpoint(m.name, m.url) for m in mirror_addresses(config)),
        ca_file=str(credentials.ca_file or ""),
        account=credentials.account,
        key_file=str(credentials.key_file or ""),
    )


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Hold the directory for this process; raise RejectedError `up.running` when another has it."""
    descriptor = os.open(directory / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RejectedError(
                "up.running",
                f"a fleet runs in this directory already, as process {file.read().strip() or 'unknown'}",
                hint="stop it, or choose another directory with --dir",
                directory=directory,
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
