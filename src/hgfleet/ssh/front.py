"""The SSH service: an SSH server of one kind or another in front, the gate behind it, sessions handed over.

Promises: every visit ends with one line in the log and one in the audit file, under the trace id that its
push carries through the log. A client is told one line and an exit status of its own for each class of
failure; what could not be asked is "temporarily unavailable, nothing was changed", exit 75.
Does not: run Mercurial, or any program: sshd, where it is the server, is started by others.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hgfleet.adapters.asyncssh_front import AsyncSshFront, FrontOptions
from hgfleet.adapters.openssh_front import OpenSshFront, OpenSshOptions
from hgfleet.ports.directory import Directory
from hgfleet.ports.ssh_front import SshFront
from hgfleet.ssh.accounts import Accounts
from hgfleet.ssh.audit import AuditFile
from hgfleet.ssh.gate import Site
from hgfleet.ssh.local_services import LocalServices
from hgfleet.ssh.reception import FleetReception, SessionLimits
from hgfleet.ssh.rights import RightsService

_THREADS = 16  # of each executor: a log agent that hangs must not keep anybody from logging in
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class SshFrontOptions:
    """Where the service listens, whom it talks to, and its limits."""

    server: FrontOptions | OpenSshOptions  # which server it is, and where it listens
    agent_socket: Path
    sessions_socket: Path
    rights_socket: Path
    audit_file: Path
    site: Site = field(default_factory=Site)
    session_limits: SessionLimits = field(default_factory=SessionLimits)
    stop_grace_seconds: float = 15.0


def run_ssh_front(options: SshFrontOptions, directory: Directory) -> int:
    """Serve until SIGTERM or SIGINT; return 0. Raises ConfigError when it can't start."""
    return asyncio.run(_serve(options, directory))


async def _serve(options: SshFrontOptions, directory: Directory) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="directory") as lookups,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="services") as calls,
    ):
        accounts = Accounts(directory, lookups)
        services = LocalServices(options.agent_socket, options.sessions_socket, calls)
        reception = _make_reception(options, accounts, services)
        rights = RightsService(options.rights_socket, reception.groups_now)
        await rights.start()
        front = _make_front(options.server, reception)
        port = await front.start()
        _log.info("ssh.ready", extra={"server": type(front).__name__, "port": port})
        await stop.wait()
        await front.stop(options.stop_grace_seconds)
        rights.stop()
    _log.info("ssh.stopped")
    return 0


def _make_front(server: FrontOptions | OpenSshOptions, reception: FleetReception) -> SshFront:
    match server:
        case FrontOptions():
            return AsyncSshFront(server, reception)
        case OpenSshOptions():
            return OpenSshFront(server, reception)


def _make_reception(options: SshFrontOptions, accounts: Accounts, services: LocalServices) -> FleetReception:
    return FleetReception(
        accounts=accounts,
        services=services,
        site=options.site,
        audit=AuditFile(options.audit_file),
        limits=options.session_limits,
    )
