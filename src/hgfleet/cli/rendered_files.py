"""The files that a run of the fleet is given: the hgrc of sessions, HAProxy's and sshd's configuration.

Promises: made anew from the configuration at every start; `hgfleet render` shows the same texts.
Does not: decide what they say (the adapters that render them do).
"""

from __future__ import annotations

from hgfleet.adapters.files import write_by_rename
from hgfleet.adapters.haproxy_config import render_haproxy
from hgfleet.adapters.hgrc_render import HgrcOptions, render_hgrc
from hgfleet.cli.addresses import has_proxy, ssh_address
from hgfleet.cli.haproxy_options import haproxy_options
from hgfleet.cli.openssh import sshd_config_text
from hgfleet.config.layout import FleetLayout


def write_rendered_files(layout: FleetLayout) -> None:
    """Write everything that the processes of this run read beside their configuration."""
    write_session_files(layout)
    if has_proxy(layout.config):
        http = layout.config.http
        write_by_rename(layout.haproxy_certificate, http.certificate.read_bytes() + http.key.read_bytes())
        write_by_rename(layout.haproxy, haproxy_text(layout).encode())


def write_session_files(layout: FleetLayout) -> None:
    """Write what sessions and the SSH server of a host that may accept pushes read."""
    write_by_rename(layout.hgrc, hgrc_text(layout).encode())
    if layout.config.ssh.kind == "openssh":
        write_by_rename(layout.sshd_config, sshd_config_text(layout).encode())


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
            advertise_bundles=config.bundles.advertise,
            allow_faults=config.testing.allow_faults,
        )
    )


def haproxy_text(layout: FleetLayout) -> str:
    """Return HAProxy's configuration for this fleet."""
    return render_haproxy(haproxy_options(layout))
