"""What HAProxy's configuration depends on, taken from the fleet's: for one machine or the balancer's host.

Promises: pure. On one machine HAProxy is a process of the fleet, and the SSH server owns its port; with hosts
it is the operator's, and carries SSH, too.
Does not: render anything (the adapter does).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from hgfleet.adapters.haproxy_config import HaproxyOptions, Mirror, Timing
from hgfleet.adapters.haproxy_ssh import SshHost, SshOptions
from hgfleet.cli.addresses import mirror_addresses, ssh_addresses
from hgfleet.config.hosts import Host, hosts_with
from hgfleet.config.layout import FleetLayout
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError


def haproxy_options(layout: FleetLayout) -> HaproxyOptions:
    """Return the options. Raises ConfigError for what a load balancer lacks."""
    config = layout.config
    public = urlsplit(config.base_url)
    public_name = public.hostname or "localhost"
    balancer = _balancer(layout)
    own_name = config.proxy.mirror_certificate_name or (public_name if balancer else "localhost")
    return HaproxyOptions(
        bind_address=balancer.bind if balancer else config.http.bind,
        http_port=config.http.http_port,
        https_port=config.http.https_port,
        public_port=public.port or (443 if config.site.url else None),
        public_name=public_name,
        certificate_file=_certificate(layout, balancer),
        mirrors=tuple(Mirror(m.name, m.address, m.port, own_name) for m in mirror_addresses(config)),
        mirrors_ca_file=_ca_file(config),
        ssh=_ssh(config, balancer) if balancer else None,
        control_socket=layout.haproxy_socket,
        timing=Timing(
            check_interval_seconds=config.proxy.check_interval_seconds,
            check_timeout_seconds=config.proxy.check_timeout_seconds,
            falls=config.proxy.fall,
        ),
        quiet_requests=config.http.workers * config.http.threads // 2,
        max_connections=config.proxy.max_connections,
    )


def _balancer(layout: FleetLayout) -> Host | None:
    """Return the balancer's host: this one, or the first; None on one machine."""
    if not layout.config.hosts:
        return None
    balancers = hosts_with(layout.config, "balancer")
    if not balancers:
        raise ConfigError("proxy.no-balancer", "no host has the role balancer", hint="add it to [[hosts]]")
    return next((host for host in balancers if host.name == layout.own), balancers[0])


def _certificate(layout: FleetLayout, balancer: Host | None) -> Path:
    if layout.config.proxy.certificate is not None:
        return layout.config.proxy.certificate
    if balancer is not None:
        raise ConfigError(
            "proxy.no-certificate",
            "the balancer needs the certificate that clients see",
            hint="set proxy.certificate to a file with chain and key",
        )
    return layout.haproxy_certificate


def _ca_file(config: FleetConfig) -> Path:
    if config.http.ca_file is None:
        raise ConfigError(
            "proxy.no-ca", "HAProxy needs the CA of the mirrors' certificate", hint="set http.ca_file"
        )
    return config.http.ca_file


def _ssh(config: FleetConfig, balancer: Host) -> SshOptions:
    return SshOptions(
        bind_address=balancer.bind,
        port=config.ssh.port,
        hosts=tuple(SshHost(h.name, h.address, h.port, h.admin_port) for h in ssh_addresses(config)),
        check_interval_seconds=config.proxy.check_interval_seconds,
        check_timeout_seconds=config.proxy.check_timeout_seconds,
        falls=config.proxy.fall,
        max_connections=config.ssh.max_connections,
    )
