"""The processes of a fleet: what is started on a machine, for which host, and how each is seen to work.

Promises: a process gets an argument list and an environment in which nothing of the caller's Mercurial set-up
shows; everything that differs between processes is in the configuration file that they are given.
Does not: start anything (cli.supervisor does), or run in those processes (cli.process does).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import hgfleet
from hgfleet.adapters.hgrc_render import without_mercurial_settings
from hgfleet.cli.addresses import (
    admin_listener,
    has_proxy,
    is_trusted_proxy,
    mirror_addresses,
    reachable,
    ssh_listener,
    ssh_proxies,
    web_listener,
)
from hgfleet.cli.probes import has_ssh_banner, http_status, is_agent_serving, is_answering, is_listening
from hgfleet.cli.process_command import process_command
from hgfleet.cli.supervisor import Service
from hgfleet.config.layout import PRIMARY, FleetLayout
from hgfleet.errors import ConfigError, InvariantError
from hgfleet.model.ids import HostName

ALL = "all"
_SERVICE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_SESSIONS_GRACE_SECONDS = 20.0
_OK, _MOVED = 200, 301


def list_services(layout: FleetLayout, directory: Path, environment: Mapping[str, str]) -> list[Service]:
    """Return the processes, to be started by stage. Raises ConfigError `proxy.missing`."""
    make = ServiceMaker(layout, layout.effective_config, directory, environment)
    services = [make.log_agent(), make.sessions(), make.coordinator(), *make.ssh()]
    for address in mirror_addresses(layout.config):
        services += [make.applier(address.name), make.clones(address.name), make.web(address.name)]
    services.append(make.bundler())
    services.append(make.proxy() if has_proxy(layout.config) else make.redirect())
    return services


def list_role_services(make: ServiceMaker, role: str, host: HostName) -> list[Service]:
    """Return the processes of one `hgfleet run ROLE` on a host."""
    match role:
        case "primary" | "standby":  # the same: which of them leads is the log's to say
            leading = [make.log_agent(), make.sessions(), *make.ssh()]
            return [*leading, make.applier(host), make.admin()]
        case "mirror":
            return [make.log_agent(), make.applier(host), make.admin()]
        case "web":
            return [make.clones(host), make.web(host)]
        case "coordinator":
            return [make.coordinator()]
        case "bundler":
            return [make.bundler()]
    raise InvariantError("run.role", "nothing is known of this role", role=role)


RUNNABLE_ROLES = ("primary", "standby", "mirror", "web", "coordinator", "bundler")


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


class ServiceMaker:
    """Makes the services of a fleet on one machine, or of one host of several."""

    def __init__(
        self, layout: FleetLayout, config_file: Path, directory: Path, environment: Mapping[str, str]
    ) -> None:
        self._layout = layout
        self._config_file = config_file
        self._directory = directory
        self._config = layout.config
        self._leading = layout.own or PRIMARY
        self._environment = without_mercurial_settings(environment)

    def log_agent(self) -> Service:
        """Make the log agent; where there are other hosts it may well be a standby's."""
        socket = self._layout.agent_socket
        serving, answering = partial(is_agent_serving, socket), partial(is_answering, socket, "hello")
        ready = answering if self._layout.own else serving
        return self._python("log-agent", self._layout.own or ALL, ready, stage=0)

    def sessions(self) -> Service:
        """Make the session server."""
        ready = partial(is_answering, self._layout.sessions_socket, "status")
        service = self._python("sessions", self._leading, ready, stage=1)
        return replace(service, grace_seconds=_SESSIONS_GRACE_SECONDS)

    def coordinator(self) -> Service:
        """Make the coordinator; on one machine it brings the admin listener with it."""
        ready = _always if self._layout.own else self._has_status()
        return self._after_agent(self._python("coordinator", self._layout.own or ALL, ready, stage=1))

    def bundler(self) -> Service:
        """Make what looks after clone bundles."""
        return self._after_agent(self._python("bundler", self._layout.own or ALL, _always, stage=2))

    def admin(self) -> Service:
        """Make the admin listener of a host: the first to go, as the load balancer asks it."""
        return self._python("admin", self._leading, self._has_status(), stage=3)

    def ssh(self) -> list[Service]:
        """Make the embedded server; or the reception, and behind a proxy what accepts for sshd."""
        ssh, listener = self._config.ssh, ssh_listener(self._layout)
        address, is_proxied = reachable(listener.address), is_trusted_proxy(self._layout)
        answers = partial(has_ssh_banner, address, listener.port, is_proxied)
        if ssh.kind == "embedded":
            return [self._front("ssh", answers)]
        reception = self._front("ssh", partial(is_listening, self._layout.gate_socket))
        if not ssh_proxies(self._config):  # sshd listens itself, and whoever runs it starts it
            return [reception]
        return [reception, self._front("ssh-entrance", answers)]

    def applier(self, host: HostName) -> Service:
        """Make the applier of a mirror, or what keeps the copies of a standby warm."""
        return self._after_agent(self._python("applier", host, _always, stage=1))

    def web(self, mirror: HostName) -> Service:
        """Make a mirror's web workers. Ready is what the load balancer asks: the mirror is in service."""
        ready = self._web_answers(mirror, "/-/livez" if self._layout.own else "/-/readyz")
        service = self._python("web", mirror, ready, stage=1)
        graceful = self._config.http.graceful_timeout_seconds
        return replace(service, grace_seconds=graceful + 2) if self._layout.own else service

    def clones(self, mirror: HostName) -> Service:
        """Make what answers full clones for a mirror's web workers."""
        ready = partial(is_listening, self._layout.clones_socket(mirror), socket.SOCK_STREAM)
        return self._python("clones", mirror, ready, stage=1)

    def redirect(self) -> Service:
        """Make the plain port of one mirror."""
        http = self._config.http
        ready = partial(_answers, reachable(http.bind), http.http_port, "/", _MOVED, is_tls=False)
        return replace(self._python("redirect", ALL, ready, stage=2), role="proxy")

    def proxy(self) -> Service:
        """Make HAProxy."""
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

    def _front(self, role: str, is_ready: Callable[[], bool]) -> Service:
        service = self._python(role, self._leading, is_ready, stage=2)
        return replace(service, grace_seconds=_SESSIONS_GRACE_SECONDS) if self._layout.own else service

    def _after_agent(self, service: Service) -> Service:
        agent = f"log-agent-{self._layout.own}" if self._layout.own else "log-agent"
        return replace(service, after=agent)

    def _has_status(self) -> Callable[[], bool]:
        listener = admin_listener(self._layout)
        address = reachable(listener.address)
        return partial(_answers, address, listener.port, "/-/livez", _OK, is_tls=False)

    def _web_answers(self, mirror: HostName, path: str) -> Callable[[], bool]:
        listener = web_listener(self._layout, mirror)
        return partial(_answers, reachable(listener.address), listener.port, path, _OK, is_tls=True)

    def _python(self, role: str, host: str, is_ready: Callable[[], bool], *, stage: int) -> Service:
        name = role if host == ALL else f"{role}-{host}"
        named = self._layout.own or (None if host in {ALL, PRIMARY} else host)
        arguments = process_command(
            role, config=self._config_file, directory=self._directory, name=name, host=named
        )
        return Service(name, role, host, arguments, self._environment, is_ready, stage)


def _answers(address: str, port: int, path: str, expected: int, *, is_tls: bool) -> bool:
    return http_status(address, port, path, is_tls=is_tls) == expected


def _always() -> bool:
    return True
