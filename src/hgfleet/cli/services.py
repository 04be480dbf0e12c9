"""The processes of a fleet on one machine: what is started, for which host, and how each is seen to work.

Promises: a process gets an argument list and an environment in which nothing of the caller's Mercurial set-up
shows; everything that differs between processes is in the configuration file that they are given.
Does not: start anything (cli.supervisor does), or run in those processes (cli.process does).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import hgfleet
from hgfleet.adapters.hgrc_render import without_mercurial_settings
from hgfleet.cli.addresses import (
    MirrorAddress,
    has_proxy,
    is_trusted_proxy,
    mirror_addresses,
    reachable,
)
from hgfleet.cli.probes import has_ssh_banner, http_status, is_agent_serving, is_answering, is_listening
from hgfleet.cli.process_command import process_command
from hgfleet.cli.supervisor import Service
from hgfleet.config.layout import PRIMARY, FleetLayout
from hgfleet.errors import ConfigError

ALL = "all"
_SERVICE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_SESSIONS_GRACE_SECONDS = 20.0
_OK, _MOVED = 200, 301


def list_services(layout: FleetLayout, directory: Path, environment: Mapping[str, str]) -> list[Service]:
    """Return the processes, to be started by stage. Raises ConfigError `proxy.missing`."""
    make = _Maker(layout, directory, environment)
    services = [make.log_agent(), make.sessions(), make.coordinator(), *make.ssh()]
    for address in mirror_addresses(layout.config):
        services += [make.applier(address), make.web(address)]
    services.append(make.proxy() if has_proxy(layout.config) else make.redirect())
    return services


def find_haproxy(program: str) -> str:
    """Return HAProxy's path: on PATH, where services are installed, or fetched by `make setup`."""
    fetched = Path(hgfleet.__file__).resolve().parents[2] / ".tools" / "bin"
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SERVICE_DIRECTORIES, str(fetched)])
    found = shutil.which(program, path=path)
    if found is None:
        raise ConfigError(
            "proxy.missing",
            "more than one mirror needs HAProxy, which is not installed",
            hint="install it, or let `make setup` fetch it",
            program=program,
        )
    return found


class _Maker:
    """Makes the services of one fleet."""

    def __init__(self, layout: FleetLayout, directory: Path, environment: Mapping[str, str]) -> None:
        self._layout = layout
        self._directory = directory
        self._config = layout.config
        self._environment = without_mercurial_settings(environment)

    def log_agent(self) -> Service:
        ready = partial(is_agent_serving, self._layout.agent_socket)
        return self._python("log-agent", ALL, ready, stage=0)

    def sessions(self) -> Service:
        ready = partial(is_answering, self._layout.sessions_socket, "status")
        service = self._python("sessions", PRIMARY, ready, stage=1)
        return replace(service, grace_seconds=_SESSIONS_GRACE_SECONDS)

    def coordinator(self) -> Service:
        admin = self._config.admin
        ready = partial(_answers, reachable(admin.bind), admin.port, "/-/status", _OK, is_tls=False)
        return replace(self._python("coordinator", ALL, ready, stage=1), after="log-agent")

    def ssh(self) -> list[Service]:
        """Make the embedded server; or the reception, and behind a proxy what accepts for sshd."""
        ssh = self._config.ssh
        answers = partial(has_ssh_banner, reachable(ssh.bind), ssh.port, is_trusted_proxy(ssh))
        if ssh.kind == "embedded":
            return [self._python("ssh", PRIMARY, answers, stage=2)]
        reception = self._python("ssh", PRIMARY, partial(is_listening, self._layout.gate_socket), stage=2)
        if not ssh.trusted_proxies:  # sshd listens itself, and whoever runs it starts it
            return [reception]
        return [reception, self._python("ssh-entrance", PRIMARY, answers, stage=2)]

    def applier(self, mirror: MirrorAddress) -> Service:
        return replace(self._python("applier", mirror.name, _always, stage=1), after="log-agent")

    def web(self, mirror: MirrorAddress) -> Service:
        """Ready is what the load balancer asks: the mirror is in service."""
        address = reachable(mirror.address)
        ready = partial(_answers, address, mirror.port, "/-/readyz", _OK, is_tls=True)
        return self._python("web", mirror.name, ready, stage=1)

    def redirect(self) -> Service:
        http = self._config.http
        ready = partial(_answers, reachable(http.bind), http.http_port, "/", _MOVED, is_tls=False)
        return replace(self._python("redirect", ALL, ready, stage=2), role="proxy")

    def proxy(self) -> Service:
        http = self._config.http
        ready = partial(_answers, reachable(http.bind), http.https_port, "/", _OK, is_tls=True)
        return Service(
            name="proxy",
            role="proxy",
            host=ALL,
            arguments=[find_haproxy(self._config.proxy.program), "-db", "-f", str(self._layout.haproxy)],
            environment=self._environment,
            is_ready=ready,
            stage=2,
        )

    def _python(self, role: str, host: str, is_ready: Callable[[], bool], *, stage: int) -> Service:
        name = role if host == ALL else f"{role}-{host}"
        config = self._layout.effective_config
        mirror = None if host in {ALL, PRIMARY} else host
        arguments = process_command(role, config=config, directory=self._directory, name=name, host=mirror)
        return Service(name, role, host, arguments, self._environment, is_ready, stage)


def _answers(address: str, port: int, path: str, expected: int, *, is_tls: bool) -> bool:
    return http_status(address, port, path, is_tls=is_tls) == expected


def _always() -> bool:
    return True
