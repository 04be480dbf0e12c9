"""The hosts of a fleet: which there are, what runs where, and whether that can work.

Promises: pure; a Host is complete: its ports are numbers and its `bind` is an IP address.
Does not: know the machine it runs on (cli.this_host), or where a host's files lie (config.layout).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hgfleet.config.host_table import HostSection, RoleName
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError
from hgfleet.model.ids import HostName

COPY_ROLES: tuple[RoleName, ...] = ("primary", "standby", "mirror")  # each has a log agent and copies
LEADING_ROLES: tuple[RoleName, ...] = ("primary", "standby")
GUEST_ROLES: tuple[RoleName, ...] = ("coordinator", "notifier", "bundler")  # these use the host's log agent


@dataclass(frozen=True, slots=True)
class Host:
    """One host of `[[hosts]]`, with what it inherits from the other tables."""

    name: HostName
    address: str  # where others reach it: an IP address or a DNS name
    bind: str
    roles: frozenset[RoleName]
    ssh_port: int
    https_port: int
    admin_port: int

    @property
    def is_leading(self) -> bool:
        """Whether it may accept pushes: the primary, or a standby."""
        return bool(self.roles.intersection(LEADING_ROLES))

    @property
    def is_mirror(self) -> bool:
        """Whether it serves reads."""
        return "mirror" in self.roles


def list_hosts(config: FleetConfig) -> tuple[Host, ...]:
    """Return the hosts in the file's order; () where the whole fleet is on one machine."""
    return tuple(_complete(config, host) for host in config.hosts)


def hosts_with(config: FleetConfig, role: RoleName) -> tuple[Host, ...]:
    """Return the hosts that have a role, in the file's order."""
    return tuple(host for host in list_hosts(config) if role in host.roles)


def find_host(config: FleetConfig, name: str) -> Host:
    """Return one host. Raises ConfigError `host.unknown`."""
    for host in list_hosts(config):
        if host.name == name:
            return host
    names = ", ".join(host.name for host in config.hosts)
    raise ConfigError("host.unknown", "no such host in the configuration", hint=f"it has {names}", host=name)


def _complete(config: FleetConfig, host: HostSection) -> Host:
    return Host(
        name=HostName(host.name),
        address=host.address,
        bind=host.bind or host.address,
        roles=frozenset(host.roles),
        ssh_port=host.ssh_port or config.ssh.port,
        https_port=host.https_port or config.http.https_port,
        admin_port=host.admin_port or config.admin.port,
    )


# ---- what cannot work


def find_host_conflicts(config: FleetConfig) -> Iterator[str]:
    """Yield everything about the hosts that cannot be right, alone or with other tables."""
    if not config.hosts:
        return
    yield from _find_duplicates(config)
    for place, host in enumerate(config.hosts):
        for problem in _find_role_conflicts(host):
            yield f"hosts[{place}].{problem}"
        if not host.bind and not is_ip(host.address):
            yield f"hosts[{place}].bind: is needed where address is a name"
    yield from _find_bundlers_without_replica(config)
    yield from _find_missing_roles(config)
    yield from _find_unshared_parts(config)
    yield from _find_unfit_tables(config)
    yield from _find_port_conflicts(config)


def _find_duplicates(config: FleetConfig) -> Iterator[str]:
    for name, uses in Counter(host.name for host in config.hosts).items():
        if uses > 1:
            yield f"hosts: {uses} of them are named {name}"


def _find_role_conflicts(host: HostSection) -> Iterator[str]:
    copies = [role for role in host.roles if role in COPY_ROLES]
    if not host.roles:
        yield "roles: must name at least one"
    if len(set(host.roles)) != len(host.roles):
        yield "roles: names one twice"
    elif len(copies) > 1:
        yield f"roles: a host is at most one of {', '.join(COPY_ROLES)}"
    guests = [role for role in host.roles if role in GUEST_ROLES]
    if guests and not copies:
        yield f"roles: {guests[0]} uses the log agent of a {', '.join(COPY_ROLES[:-1])} or mirror on its host"


def _find_bundlers_without_replica(config: FleetConfig) -> Iterator[str]:
    for place, host in enumerate(config.hosts):
        if "bundler" in host.roles and "primary" in host.roles:
            yield f"hosts[{place}].roles: a bundler works on a replica: beside a standby or a mirror"


def _find_missing_roles(config: FleetConfig) -> Iterator[str]:
    counts = Counter(role for host in config.hosts for role in host.roles)
    if counts["primary"] != 1:
        yield f"hosts: exactly one has the role primary, not {counts['primary']}"
    for role in ("mirror", "coordinator"):
        if not counts[role]:
            yield f"hosts: at least one needs the role {role}"


def _find_unshared_parts(config: FleetConfig) -> Iterator[str]:
    """Files of one machine can be shared by hosts on it, which only loopback addresses show for sure."""
    if all(is_loopback(host.address) for host in config.hosts):
        return
    for table, kind in (
        ("log", config.log.kind),
        ("blobs", config.blobs.kind),
        ("directory", config.directory.kind),
    ):
        if kind in _FILES_OF_ONE_MACHINE:
            yield f'{table}.kind: "{kind}" is one machine\'s files, which hosts on several cannot share'
    for name, store in config.bundle_stores.items():
        if not store.base_url:
            yield f"bundles.stores.{name}.base_url: is needed with hosts on several machines"


_FILES_OF_ONE_MACHINE = ("sqlite", "directory", "toml")


def _find_unfit_tables(config: FleetConfig) -> Iterator[str]:
    if not config.site.url:
        yield "site.url: is needed with hosts: where clients find the load balancer"
    if config.mirrors.ports:
        yield "mirrors.ports: are for one machine; with hosts each has its https_port"
    for place, host in enumerate(config.hosts):
        if "balancer" in host.roles and not is_ip(host.address) and not config.http.trusted_proxies:
            yield (
                f"hosts[{place}].address: the balancer's is a name, so http.trusted_proxies must have its "
                "network, or mirrors cannot tell clients apart"
            )


def _find_port_conflicts(config: FleetConfig) -> Iterator[str]:
    for place, host in enumerate(list_hosts(config)):
        used = _used_ports(config, host)
        for key, port in used:
            if not port:
                yield f"hosts[{place}].{key}: is needed with hosts, as others have to find it"
        for port, uses in Counter(port for _, port in used).items():
            if port and uses > 1:
                keys = ", ".join(key for key, value in used if value == port)
                yield f"hosts[{place}]: {keys} are the same port {port} there"


def _used_ports(config: FleetConfig, host: Host) -> list[tuple[str, int]]:
    used = []
    if host.is_leading:
        used.append(("ssh_port", host.ssh_port))
    if host.is_mirror:
        used.append(("https_port", host.https_port))
    if host.roles.intersection(COPY_ROLES):
        used.append(("admin_port", host.admin_port))
    if "balancer" in host.roles:
        ssh, http = config.ssh, config.http
        used += [
            ("ssh.port", ssh.port),
            ("http.http_port", http.http_port),
            ("http.https_port", http.https_port),
        ]
    return used


def is_ip(address: str) -> bool:
    """Tell an IP address from a name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Tell whether an address is certainly this machine's own."""
    return is_ip(address) and ipaddress.ip_address(address).is_loopback
