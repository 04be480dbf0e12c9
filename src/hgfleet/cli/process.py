"""`python -m hgfleet.cli.process ROLE --config FILE …`: the entry of every process of a fleet.

One function per role turns the configuration into that daemon's options and runs it. Imports are inside these
functions, so that a process loads its own role's code and nothing else.

Promises: exit 0 after a clean stop, the error class's exit code otherwise; whatever is raised ends as one
structured line on standard error.
Does not: restart anything (the supervisor or the service manager does).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from hgfleet.config.layout import FleetLayout, HostLayout
from hgfleet.config.load import load_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import FleetError
from hgfleet.model.ids import HostName
from hgfleet.runtime.faults import Faults, faults_from_environment
from hgfleet.runtime.observability import configure_logging


@dataclass(frozen=True, slots=True)
class Start:
    """What a process was started with."""

    config: FleetConfig
    config_path: Path
    mirror: HostName | None

    @property
    def layout(self) -> FleetLayout:
        """Where the fleet's files lie."""
        return FleetLayout(self.config)

    @property
    def host(self) -> HostLayout:
        """The mirror that this process works for."""
        assert self.mirror is not None  # noqa: S101 - the supervisor names it for these roles
        return self.layout.host(self.mirror)

    @property
    def faults(self) -> Faults:
        """Crash points for tests."""
        return faults_from_environment(self.config.testing.allow_faults)


def run_sessions_process(start: Start) -> int:
    """Run the session server, which imports Mercurial."""
    from hgfleet.hgext.session_server import SessionServerOptions, run_session_server

    layout = start.layout
    return run_session_server(
        SessionServerOptions(
            socket=layout.sessions_socket,
            hgrc=layout.hgrc,
            repositories=layout.primary.repositories,
            max_sessions=start.config.ssh.max_sessions,
        )
    )


def run_ssh_process(start: Start) -> int:
    """Run the SSH front and its gate."""
    from hgfleet.adapters.asyncssh_front import FrontOptions
    from hgfleet.adapters.toml_directory import TomlDirectory
    from hgfleet.ssh.front import SshFrontOptions, run_ssh_front
    from hgfleet.ssh.gate import Site
    from hgfleet.ssh.reception import SessionLimits

    config, ssh, access = start.config, start.config.ssh, start.config.access
    options = SshFrontOptions(
        listen=FrontOptions(
            bind=ssh.bind,
            port=ssh.port,
            host_key=ssh.host_key,
            max_connections=ssh.max_connections,
            login_timeout_seconds=ssh.login_timeout_seconds,
            idle_timeout_seconds=ssh.idle_timeout_seconds,
        ),
        agent_socket=start.layout.agent_socket,
        sessions_socket=start.layout.sessions_socket,
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
        ),
    )
    return run_ssh_front(options, TomlDirectory(config.directory.path))


def run_apply_worker_process(start: Start) -> int:
    """Run one of an applier's workers, which imports Mercurial."""
    from hgfleet.hgext.apply_worker import ApplyWorkerOptions, run_apply_worker

    allow_faults = start.config.testing.allow_faults
    run_apply_worker(ApplyWorkerOptions(host=start.host.name, allow_faults=allow_faults))
    return 0


def run_coordinator_process(start: Start) -> int:
    """Run the coordinator, with the admin listener in a process of its own beside it."""
    from hgfleet.cli.admin_process import start_admin
    from hgfleet.config.layout import PRIMARY
    from hgfleet.replication.coordinator import CoordinatorOptions, run_coordinator
    from hgfleet.runtime.lifecycle import stop_on_signals

    stop = stop_on_signals()
    membership = start.config.membership
    with start_admin(start.config_path, stop):
        run_coordinator(
            CoordinatorOptions(
                host=PRIMARY,
                agent_socket=start.layout.agent_socket,
                lease_seconds=membership.lease_seconds,
                floor=membership.floor,
                faults=start.faults,
            ),
            stop,
        )
    return 0


def run_admin_process(start: Start) -> int:
    """Run the admin listener."""
    from hgfleet.cli.admin_process import run_admin

    return run_admin(start.config, start.config_path)


ROLES: dict[str, Callable[[Start], int]] = {
    "sessions": run_sessions_process,
    "ssh": run_ssh_process,
    "apply-worker": run_apply_worker_process,
    "coordinator": run_coordinator_process,
    "admin": run_admin_process,
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
    mirror = HostName(arguments.mirror) if arguments.mirror else None
    try:
        status: int = ROLES[arguments.role](Start(config, config_path, mirror))
    except FleetError as error:
        status = _report(error)
    except Exception:
        structlog.get_logger().exception("process-failed")
        status = FleetError.exit_code
    sys.exit(status)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hgfleet.cli.process")
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--mirror", default="")
    return parser.parse_args()


def _report(error: FleetError) -> int:
    structlog.get_logger().error("process-failed", code=error.code, reason=str(error), hint=error.hint)
    return error.exit_code


if __name__ == "__main__":
    main()
