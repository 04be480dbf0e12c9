"""Which address and port each mirror answers at, and what the fleet's URLs are.

One mirror's web workers own the public HTTPS port; more of them stand behind HAProxy, on ports of loopback.

Promises: pure; the ports in the configuration are resolved ones.
Does not: bind anything.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from hgfleet.config.schema import FleetConfig, SshSection
from hgfleet.model.ids import HostName

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class MirrorAddress:
    """Where one mirror's web workers listen, with TLS."""

    name: HostName
    address: str
    port: int

    @property
    def url(self) -> str:
        """Its own base URL; the certificate names localhost."""
        return f"https://localhost:{self.port}"


def has_proxy(config: FleetConfig) -> bool:
    """Tell whether HAProxy stands in front."""
    return config.mirrors.count > 1


def mirror_addresses(config: FleetConfig) -> list[MirrorAddress]:
    """Return every mirror's address, in order."""
    names = [HostName(f"mirror{number}") for number in range(1, config.mirrors.count + 1)]
    if not has_proxy(config):
        return [MirrorAddress(names[0], config.http.bind, config.http.https_port)]
    return [
        MirrorAddress(name, LOOPBACK, port) for name, port in zip(names, config.mirrors.ports, strict=True)
    ]


def reachable(bind: str) -> str:
    """Return an address at which a server bound to `bind` is reached from this machine."""
    address = ipaddress.ip_address(bind)
    if not address.is_unspecified:
        return bind
    return LOOPBACK if address.version == 4 else "::1"


def is_trusted_proxy(ssh: SshSection) -> bool:
    """Tell whether a connection from this machine to the SSH port is taken for a load balancer's."""
    own = ipaddress.ip_address(reachable(ssh.bind))
    return any(own in ipaddress.ip_network(network) for network in ssh.trusted_proxies)


def ssh_host(config: FleetConfig) -> str:
    """Return the host part of SSH URLs."""
    address = ipaddress.ip_address(config.ssh.bind)
    is_local = address.is_loopback or address.is_unspecified
    return "localhost" if is_local else config.ssh.bind


def ssh_address(config: FleetConfig) -> str:
    """Return host and port of SSH URLs."""
    return f"{ssh_host(config)}:{config.ssh.port}"
