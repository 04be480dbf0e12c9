"""The files that a run of the fleet is given: the hgrc of sessions, HAProxy's and sshd's configuration.

Promises: made anew from the configuration at every start; `hgfleet render` shows the same texts.
Does not: decide what they say (the adapters that render them do).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from hgfleet.adapters.files import write_by_rename
from hgfleet.adapters.haproxy_config import HaproxyOptions, Mirror, Timing, render_haproxy
from hgfleet.adapters.hgrc_render import HgrcOptions, render_hgrc
from hgfleet.cli.addresses import has_proxy, mirror_addresses, ssh_address
from hgfleet.cli.openssh import sshd_config_text
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import ConfigError


def write_rendered_files(layout: FleetLayout) -> None:
    """Write everything that the processes of this run read beside their configuration."""
    write_by_rename(layout.hgrc, hgrc_text(layout).encode())
    if layout.config.ssh.kind == "openssh":
        write_by_rename(layout.sshd_config, sshd_config_text(layout).encode())
    if has_proxy(layout.config):
        http = layout.config.http
        write_by_rename(layout.haproxy_certificate, http.certificate.read_bytes() + http.key.read_bytes())
        write_by_rename(layout.haproxy, haproxy_text(layout).encode())


def hgrc_text(layout: FleetLayout) -> str:
    """Return the hgrc of the primary's session server."""
    config = layout.config
    return render_hgrc(
        HgrcOptions(
            host=layout.primary.name,
            agent_socket=layout.agent_socket,
            spool_directory=layout.primary.spool,
            site_url=config.base_url,
            ssh_url=f"ssh://{ssh_address(config)}",
            inline_limit_bytes=config.log.inline_limit_bytes,
            append_deadline_seconds=config.push.append_deadline_seconds,
            visible_wait_seconds=config.push.visible_wait_seconds,
            lock_timeout_seconds=config.push.lock_timeout_seconds,
            allow_faults=config.testing.allow_faults,
        )
    )


def haproxy_text(layout: FleetLayout) -> str:
    """Return HAProxy's configuration for this fleet's mirrors."""
    config = layout.config
    if config.http.ca_file is None:
        raise ConfigError(
            "proxy.no-ca", "HAProxy needs the CA of the mirrors' certificate", hint="set http.ca_file"
        )
    public = urlsplit(config.base_url)
    return render_haproxy(
        HaproxyOptions(
            bind_address=config.http.bind,
            http_port=config.http.http_port,
            https_port=config.http.https_port,
            public_port=public.port or (443 if config.site.url else None),
            public_name=public.hostname or "localhost",
            certificate_file=layout.haproxy_certificate,
            mirrors=tuple(Mirror(m.name, m.address, m.port) for m in mirror_addresses(config)),
            mirrors_ca_file=config.http.ca_file,
            control_socket=layout.haproxy_socket,
            timing=Timing(
                check_interval_seconds=config.proxy.check_interval_seconds,
                check_timeout_seconds=config.proxy.check_timeout_seconds,
                falls=config.proxy.fall,
            ),
            quiet_requests=config.http.workers * config.http.threads // 2,
            max_connections=config.proxy.max_connections,
        )
    )
