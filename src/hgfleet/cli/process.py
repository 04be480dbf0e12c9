"""`python -m hgfleet.cli.process ROLE --config FILE …`: the entry of every process of a fleet.

One function per role turns the configuration into that daemon's options and runs it. Imports are inside these
functions, so that a process loads its own role's code and nothing else.

Promises: exit 0 after a clean stop, the error class's exit code otherwise; whatever is raised ends as one
structured line on standard error.
Does not: restart anything (the supervisor or the service manager does).
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hgfleet.cli.process_command import process_command
from hgfleet.config.hosts import find_host
from hgfleet.config.layout import FleetLayout, HostLayout
from hgfleet.config.load import load_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import FleetError
from hgfleet.model.ids import HostName
from hgfleet.runtime.faults import Faults, faults_from_environment
from hgfleet.runtime.observability import configure_logging

if TYPE_CHECKING:
    from hgfleet.replication.applier import ApplierOptions
    from hgfleet.web.options import SiteOptions


@dataclass(frozen=True, slots=True)
class Start:
    """What a process was started with."""

    config: FleetConfig
    config_path: Path
    directory: Path
    host_name: HostName | None  # a mirror's, or this host's in `[[hosts]]`
    repository: str = ""
    source: str = ""

    @property
    def layout(self) -> FleetLayout:
        """Where the files of this machine lie."""
        return FleetLayout(self.config, self.host_name if self.config.hosts else None)

    @property
    def host(self) -> HostLayout:
        """The host whose copies this process keeps or serves."""
        assert self.host_name is not None  # noqa: S101 - the supervisor names it for these roles
        return self.layout.host(self.host_name)

    @property
    def faults(self) -> Faults:
        """Crash points for tests."""
        return faults_from_environment(self.config.testing.allow_faults)


def run_log_agent_process(start: Start) -> int:
    """Run the log agent on the log that the configuration names."""
    import asyncio

    from hgfleet.cli.parts import open_blobs, open_log, retention_policy, snapshot_policy
    from hgfleet.replication.agent_parts import AgentOptions
    from hgfleet.replication.log_agent import run_log_agent

    config, layout = start.config, start.layout
    own = find_host(config, layout.own) if layout.own else None
    opened = open_log(config)
    options = AgentOptions(
        socket_path=layout.agent_socket,
        host=layout.agent_host.name,
        index_path=layout.agent_host.log_index,
        log=opened.log,
        log_id=opened.log_id,
        blobs=open_blobs(config),
        progress=opened.progress,
        may_lead=own is None or own.is_leading,
        may_found=own is None or "primary" in own.roles,
        append_deadline_seconds=config.push.append_deadline_seconds,
        inline_limit_bytes=config.log.inline_limit_bytes,
        release=version("hgfleet"),
        snapshots=snapshot_policy(config),
        retention=retention_policy(config),
        faults=start.faults,
    )
    try:
        asyncio.run(run_log_agent(options))
    finally:
        opened.close()
    return 0


def run_sessions_process(start: Start) -> int:
    """Run the session server, which imports Mercurial."""
    from hgfleet.cli.parts import location_options
    from hgfleet.hgext.session_server import SessionServerOptions, run_session_server

    layout = start.layout
    return run_session_server(
        SessionServerOptions(
            socket=layout.sessions_socket,
            rights_socket=layout.rights_socket,
            hgrc=layout.hgrc,
            repositories=layout.primary.repositories,
            max_sessions=start.config.ssh.max_sessions,
            locations=location_options(start.config),
        )
    )


def run_ssh_process(start: Start) -> int:
    """Run the SSH front and its gate: the embedded server, or the reception behind sshd."""
    from hgfleet.cli.parts import open_directory, ssh_server
    from hgfleet.ssh.front import SshFrontOptions, run_ssh_front
    from hgfleet.ssh.gate import Site
    from hgfleet.ssh.reception import SessionLimits

    config, ssh, access = start.config, start.config.ssh, start.config.access
    options = SshFrontOptions(
        server=ssh_server(start.layout),
        agent_socket=start.layout.agent_socket,
        sessions_socket=start.layout.sessions_socket,
        rights_socket=start.layout.rights_socket,
        audit_file=start.layout.audit_file,
        site=Site(
            name=config.site.name,
            creators=frozenset(access.creators),
            default_writers=access.default_writers,
            service_accounts=frozenset(access.service_accounts),
        ),
        session_limits=SessionLimits(
            max_sessions=ssh.max_sessions,
            max_sessions_per_account=ssh.max_sessions_per_account,
            visible_wait_seconds=config.push.visible_wait_seconds,
            account_check_seconds=ssh.account_check_seconds,
        ),
    )
    return run_ssh_front(options, open_directory(start.layout))


def run_ssh_entrance_process(start: Start) -> int:
    """Accept connections for sshd behind a load balancer."""
    from hgfleet.adapters.sshd_connections import SshdProgram
    from hgfleet.cli.addresses import ssh_listener
    from hgfleet.cli.openssh import find_sshd
    from hgfleet.cli.parts import entrance_options
    from hgfleet.ssh.entrance import SshEntranceOptions, run_ssh_entrance

    ssh, layout, listener = start.config.ssh, start.layout, ssh_listener(start.layout)
    sshd = SshdProgram(
        program=find_sshd(layout),
        config=layout.sshd_config,
        max_connections=ssh.max_connections,
        login_timeout_seconds=ssh.login_timeout_seconds,
    )
    entrance = entrance_options(start.config)
    return run_ssh_entrance(SshEntranceOptions(listener.address, listener.port, entrance, sshd))


def run_applier_process(start: Start) -> int:
    """Run a mirror's applier, or a standby's; it starts its workers by this module's own role for them."""
    from hgfleet.replication.applier import ApplierOptions, run_applier
    from hgfleet.replication.mirror_bundles import BundleOffers
    from hgfleet.replication.standby import keep_warm
    from hgfleet.runtime.lifecycle import stop_on_signals

    config, host = start.config, start.host
    worker = process_command(
        "apply-worker",
        config=start.config_path,
        directory=start.directory,
        name=f"apply-worker-{host.name}",
        host=host.name,
    )
    options = ApplierOptions(
        host=host.name,
        repositories=host.repositories,
        spool=host.spool,
        catalogue=host.catalogue,
        serving=host.serving,
        agent_socket=start.layout.agent_socket,
        worker_command=worker,
        worker_environment=os.environ,
        workers=config.mirrors.apply_workers,
        self_stale_seconds=config.membership.self_stale_seconds,
        notice_seconds=config.proxy.detection_seconds if config.mirror_count > 1 else 0.0,
        release=version("hgfleet"),
        faults=start.faults,
    )
    stop, own = stop_on_signals(), start.layout.own_host
    if own is not None and own.is_leading:
        keep_warm(options, stop)
    else:
        _start_snapshot_maker(start, options, stop)
        _start_demand_reporter(start, options, stop)
        BundleOffers(options.repositories, options.agent_socket, stop).start()
        run_applier(options, stop)
    return 0


def _start_demand_reporter(start: Start, options: ApplierOptions, stop: threading.Event) -> None:
    """Publish what this mirror's web workers count of clones."""
    from hgfleet.replication.demand_reporter import DemandReporter

    interval_seconds = start.config.bundles.interval_seconds
    DemandReporter(options.host, start.host.demand, options.agent_socket, interval_seconds, stop).start()


def _start_snapshot_maker(start: Start, options: ApplierOptions, stop: threading.Event) -> None:
    """Make this mirror's share of the snapshots beside its applier."""
    from hgfleet.replication.snapshot_maker import MakerOptions, SnapshotMaker

    maker = MakerOptions(
        host=options.host,
        repositories=options.repositories,
        spool=options.spool,
        agent_socket=options.agent_socket,
        worker_command=options.worker_command,
        worker_environment=options.worker_environment,
        check_seconds=start.config.snapshots.check_interval_seconds,
        faults=start.faults,
    )
    SnapshotMaker(maker, stop).start()


def run_web_process(start: Start) -> int:
    """Run a mirror's web workers, which import Mercurial."""
    from hgfleet.cli.addresses import web_listener
    from hgfleet.web.options import WebOptions
    from hgfleet.web.server import run_web

    http, listener = start.config.http, web_listener(start.layout, start.host.name)
    site = replace(
        _site(start),
        demand=start.host.demand,
        clone_lane=start.layout.clones_socket(start.host.name),
        clone_places=_clone_places(start.config),
    )
    options = WebOptions(
        site=site,
        address=listener.address,
        port=listener.port,
        certificate=http.certificate,
        key=http.key,
        workers=http.workers,
        threads=http.threads,
        graceful_timeout_seconds=http.graceful_timeout_seconds,
    )
    run_web(options)
    return 0


def run_clones_process(start: Start) -> int:
    """Run what makes full clones for a mirror's web workers; it imports Mercurial."""
    from hgfleet.web.options import CloneLaneOptions
    from hgfleet.web.server import run_clone_lane

    http = start.config.http
    options = CloneLaneOptions(
        site=_site(start),
        socket=start.layout.clones_socket(start.host.name),
        workers=http.clone_workers,
        threads=_clone_places(start.config) * http.workers,
    )
    run_clone_lane(options)
    return 0


def _clone_places(config: FleetConfig) -> int:
    """Return how many full clones one web worker may answer at once: the rest of its threads is for pulls."""
    http = config.http
    return max(1, min(http.full_clones // http.workers, http.threads // 2))


def _site(start: Start) -> SiteOptions:
    """Return what every process that answers readers of a mirror is told."""
    from hgfleet.cli.addresses import http_proxies, ssh_address
    from hgfleet.cli.parts import location_options
    from hgfleet.config.bundles_table import served_directories
    from hgfleet.web.options import SiteOptions

    config, host = start.config, start.host
    return SiteOptions(
        repositories=host.repositories,
        catalogue=host.catalogue,
        serving=host.serving,
        demand=None,
        host=host.name,
        base_url=config.base_url,
        ssh_url=f"ssh://{ssh_address(config)}",
        site_name=config.site.name,
        trusted_proxies=http_proxies(config),
        locations=location_options(config),
        advertise_bundles=config.bundles.advertise,
        bundle_directories=served_directories(config.stores),
    )


def run_redirect_process(start: Start) -> int:
    """Run the plain port of a fleet with one mirror."""
    from hgfleet.web.options import RedirectOptions
    from hgfleet.web.redirect import run_redirect

    http = start.config.http
    run_redirect(RedirectOptions(address=http.bind, port=http.http_port, base_url=start.config.base_url))
    return 0


def run_apply_worker_process(start: Start) -> int:
    """Run one of an applier's workers, which imports Mercurial."""
    from hgfleet.hgext.apply_worker import ApplyWorkerOptions, run_apply_worker

    allow_faults = start.config.testing.allow_faults
    run_apply_worker(ApplyWorkerOptions(host=start.host.name, allow_faults=allow_faults))
    return 0


def run_bundler_process(start: Start) -> int:
    """Run the bundler."""
    from hgfleet.bundles.bundler import BundlerOptions, run_bundler
    from hgfleet.bundles.clone_rates import CloneRates
    from hgfleet.cli.bundle_parts import bundlers_turn, check_policy, run_options
    from hgfleet.runtime.lifecycle import stop_on_signals

    rates = CloneRates()
    run = run_options(start.layout, start.config_path, start.directory, start.faults)
    options = BundlerOptions(
        run=replace(run, clones_a_day=rates),
        turn=bundlers_turn(start.layout),
        agent_socket=start.layout.agent_socket,
        status_file=start.layout.bundler_status,
        interval_seconds=start.config.bundles.interval_seconds,
        checks=check_policy(start.config),
        rates=rates,
    )
    run_bundler(options, stop_on_signals())
    return 0


def run_bundle_maker_process(start: Start) -> int:
    """Make one repository's bundle files, which needs Mercurial."""
    from hgfleet.hgext.bundle_process import run_bundle_process

    return run_bundle_process(start.host_name or "", start.faults)


def run_coordinator_process(start: Start) -> int:
    """Run the coordinator; on one machine with the admin listener in a process of its own beside it."""
    from hgfleet.cli.admin_process import start_admin
    from hgfleet.replication.coordinator import CoordinatorOptions, run_coordinator
    from hgfleet.runtime.lifecycle import stop_on_signals

    stop = stop_on_signals()
    membership = start.config.membership
    options = CoordinatorOptions(
        host=start.layout.agent_host.name,
        agent_socket=start.layout.agent_socket,
        lease_seconds=membership.lease_seconds,
        floor=membership.floor,
        faults=start.faults,
    )
    with nullcontext() if start.layout.own else start_admin(start.config_path, start.directory, stop):
        run_coordinator(options, stop)
    return 0


def run_admin_process(start: Start) -> int:
    """Run the admin listener."""
    from hgfleet.cli.admin_process import run_admin
    from hgfleet.cli.fleet import Place

    return run_admin(start.config, Place(start.config_path, start.directory, start.host_name))


def run_import_process(start: Start) -> int:
    """Run one import, which needs Mercurial."""
    from hgfleet.cli import import_process

    return import_process.run_import_process(start.layout, start.repository, start.source)


def run_adopt_process(start: Start) -> int:
    """Adopt one copy, which needs Mercurial."""
    from hgfleet.cli import adopt_process

    return adopt_process.run_adopt_process(start.layout, start.source)


ROLES: dict[str, Callable[[Start], int]] = {
    "log-agent": run_log_agent_process,
    "sessions": run_sessions_process,
    "ssh": run_ssh_process,
    "ssh-entrance": run_ssh_entrance_process,
    "applier": run_applier_process,
    "web": run_web_process,
    "clones": run_clones_process,
    "redirect": run_redirect_process,
    "apply-worker": run_apply_worker_process,
    "coordinator": run_coordinator_process,
    "admin": run_admin_process,
    "bundler": run_bundler_process,
    "bundle-maker": run_bundle_maker_process,
    "import": run_import_process,
    "adopt": run_adopt_process,
}


def main() -> None:
    """Run the role that the arguments name."""
    arguments = _parse_arguments()
    config_path: Path = arguments.config
    try:
        config = load_config(config_path)
    except FleetError as error:
        configure_logging(arguments.name or arguments.role, "info")
        sys.exit(_report(error))
    configure_logging(arguments.name or arguments.role, config.logs.level)
    start = Start(
        config,
        config_path,
        arguments.dir,
        HostName(arguments.host) if arguments.host else None,
        arguments.repository,
        arguments.source,
    )
    try:
        status: int = ROLES[arguments.role](start)
    except FleetError as error:
        status = _report(error)
    except Exception:
        structlog.get_logger().exception("process.failed")
        status = FleetError.exit_code
    sys.exit(status)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hgfleet.cli.process")
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--dir", type=Path, default=Path(), help="the fleet's directory")
    parser.add_argument("--name", default="", help="what the log lines call this process")
    parser.add_argument("--host", default="", help="the host that this process works for")
    parser.add_argument("--repository", default="", help="the repository to import into")
    parser.add_argument("--source", default="", help="what to import, or to adopt")
    return parser.parse_args()


def _report(error: FleetError) -> int:
    structlog.get_logger().error("process.failed", code=error.code, reason=str(error), hint=error.hint)
    return error.exit_code


if __name__ == "__main__":
    main()
