"""The part of HAProxy's configuration that carries SSH to the active primary, whichever host that is now.

Promises: a connection goes to the host whose admin listener says that it is the active primary; the others
are there for when it is not; the SSH server learns the client's address (PROXY protocol); a host that is gone
without a word ends its sessions within half a minute, one that hands over lets them end by themselves.
Does not: choose the primary (the log does), or look into what is carried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hgfleet.adapters.haproxy_text import Section, address, check_intervals, milliseconds, name

READY_PATH = "/-/readyz"
# A push that waits for nobody may take hours to send. Clients that are gone are found by keep-alives.
_SESSION_TIMEOUT = "24h"
_CLIENT_KEEPALIVE = ("option clitcpka", "clitcpka-idle 60s", "clitcpka-intvl 15s", "clitcpka-cnt 8")
_SERVER_KEEPALIVE = ("option srvtcpka", "srvtcpka-idle 10s", "srvtcpka-intvl 4s", "srvtcpka-cnt 3")
_UNACKNOWLEDGED = "25s"  # the same for a host that goes while data is on its way to it


@dataclass(frozen=True, slots=True)
class SshHost:
    """A host that is or may become the primary."""

    name: str
    address: str
    ssh_port: int
    admin_port: int  # where it says whether it is the active primary


@dataclass(frozen=True, slots=True)
class SshOptions:
    """Everything that the SSH part depends on."""

    bind_address: str
    port: int
    hosts: tuple[SshHost, ...]  # the usual primary first
    check_interval_seconds: float = 1.0
    check_timeout_seconds: float = 1.0
    falls: int = 2
    max_connections: int = 400


def ssh_sections(options: SshOptions) -> Iterator[Section]:
    """Yield the sections of the SSH side."""
    yield [
        "frontend ssh",
        "mode tcp",
        "option tcplog",
        f"bind {address(options.bind_address, options.port)}",
        f"maxconn {options.max_connections}",
        f"timeout client {_SESSION_TIMEOUT}",
        *_CLIENT_KEEPALIVE,
        "default_backend primary",
    ]
    yield [
        "backend primary",
        "mode tcp",
        f"timeout server {_SESSION_TIMEOUT}",
        "timeout connect 1s",  # a person waits; the other host may answer
        f"timeout check {milliseconds(options.check_timeout_seconds)}",
        "retries 1",
        "option redispatch 1",
        *_SERVER_KEEPALIVE,
        "option httpchk",
        f"http-check send meth GET uri {READY_PATH} ver HTTP/1.1 hdr Host localhost",
        "http-check expect status 200",
        f"default-server check {check_intervals(options.check_interval_seconds)} "
        f"fall {options.falls} rise 1 send-proxy-v2 tcp-ut {_UNACKNOWLEDGED}",
        *(_server(host, is_backup=place > 0) for place, host in enumerate(options.hosts)),
    ]


def _server(host: SshHost, *, is_backup: bool) -> str:
    target = address(host.address, host.ssh_port)
    backup = " backup" if is_backup else ""
    return f"server {name(host.name)} {target} port {host.admin_port}{backup}"
