"""Which address and port each part of a fleet answers at, and what the fleet's URLs are.

On one machine one mirror's web workers own the public HTTPS port; more of them stand behind HAProxy, on ports
of loopback. In a fleet of several hosts each mirror answers at its host's own address and port.

Promises: pure; the ports in the configuration are resolved ones.
Does not: bind anything.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from hgfleet.config.hosts import hosts_with, is_ip
from hgfleet.config.layout import FleetLayout
from hgfleet.config.schema import FleetConfig
from hgfleet.model.ids import HostName

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a server of this host listens."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class MirrorAddress:
    """Where one mirror's web workers are reached, with TLS."""

    name: HostName
    address: str
    port: int
    url_host: str = "localhost"  # which the certificate names on one machine

    @property
    def url(self) -> str:
        """Its own base URL."""
        return f"https://{bracketed(self.url_host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where one host that may accept pushes is reached, and where its `/-/readyz` says whether it does."""

    name: HostName
    address: str
    port: int
    admin_port: int


def has_proxy(config: FleetConfig) -> bool:
    """Tell whether HAProxy stands in front."""
    return bool(hosts_with(config, "balancer")) if config.hosts else config.mirrors.count > 1


def ssh_addresses(config: FleetConfig) -> list[SshAddress]:
    """Return the hosts that may accept pushes, the primary first; [] on one machine."""
    leading = (*hosts_with(config, "primary"), *hosts_with(config, "standby"))
    return [SshAddress(host.name, host.address, host.ssh_port, host.admin_port) for host in leading]


def mirror_addresses(config: FleetConfig) -> list[MirrorAddress]:
    """Return every mirror's address, in order."""
    if config.hosts:
        mirrors = hosts_with(config, "mirror")
        return [MirrorAddress(host.name, host.address, host.https_port, host.address) for host in mirrors]
    names = mirror_names(config)
    if not has_proxy(config):
        return [MirrorAddress(names[0], config.http.bind, config.http.https_port)]
    return [
        MirrorAddress(name, LOOPBACK, port) for name, port in zip(names, config.mirrors.ports, strict=True)
    ]


def mirror_names(config: FleetConfig) -> list[HostName]:
    """Return the mirrors' names, in order."""
    if config.hosts:
        return [host.name for host in hosts_with(config, "mirror")]
    return [HostName(f"mirror{number}") for number in range(1, config.mirrors.count + 1)]


def reachable(bind: str) -> str:
    """Return an address at which a server bound to `bind` is reached from this machine."""
    address = ipaddress.ip_address(bind)
    if not address.is_unspecified:
        return bind
    return LOOPBACK if address.version == 4 else "::1"


def ssh_listener(layout: FleetLayout) -> Listener:
    """Return where this host's SSH server listens."""
    ssh, host = layout.config.ssh, layout.own_host
    return Listener(host.bind, host.ssh_port) if host else Listener(ssh.bind, ssh.port)


def admin_listener(layout: FleetLayout) -> Listener:
    """Return where this host's admin listener is."""
    admin, host = layout.config.admin, layout.own_host
    return Listener(host.bind, host.admin_port) if host else Listener(admin.bind, admin.port)


def web_listener(layout: FleetLayout, mirror: HostName) -> Listener:
    """Return where the web workers of a mirror listen that is here."""
    if layout.own_host:
        return Listener(layout.own_host.bind, layout.own_host.https_port)
    [address] = [each for each in mirror_addresses(layout.config) if each.name == mirror]
    return Listener(address.address, address.port)


def ssh_proxies(config: FleetConfig) -> tuple[str, ...]:
    """Return the networks of load balancers that say whose SSH connection they pass on."""
    return (*config.ssh.trusted_proxies, *_balancers(config))


def http_proxies(config: FleetConfig) -> tuple[str, ...]:
    """Return the networks of load balancers whose forwarding headers are believed."""
    own = ("127.0.0.0/8", "::1/128") if has_proxy(config) and not config.hosts else ()
    return (*config.http.trusted_proxies, *own, *_balancers(config))


def _balancers(config: FleetConfig) -> tuple[str, ...]:
    return tuple(host.address for host in hosts_with(config, "balancer") if is_ip(host.address))


def is_trusted_proxy(layout: FleetLayout) -> bool:
    """Tell whether a connection from this machine to the SSH port is taken for a load balancer's."""
    own = ipaddress.ip_address(reachable(ssh_listener(layout).address))
    return any(own in ipaddress.ip_network(network) for network in ssh_proxies(layout.config))


def bracketed(host: str) -> str:
    """Return a host as URLs have it."""
    return f"[{host}]" if ":" in host else host


def ssh_host(config: FleetConfig) -> str:
    """Return the host part of SSH URLs."""
    if config.hosts:
        return bracketed(urlsplit(config.base_url).hostname or "localhost")
    address = ipaddress.ip_address(config.ssh.bind)
    is_local = address.is_loopback or address.is_unspecified
    return "localhost" if is_local else config.ssh.bind


def ssh_address(config: FleetConfig) -> str:
    """Return host and port of SSH URLs."""
    return f"{ssh_host(config)}:{config.ssh.port}"
