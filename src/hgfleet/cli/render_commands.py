"""`hgfleet render`: the configuration of the programs around hgfleet, as text.

Promises: prints what `hgfleet up` would give them, from the configuration alone.
Does not: write or reload anything.
"""

from __future__ import annotations

import click

from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.openssh import sshd_config_text
from hgfleet.cli.rendered_files import haproxy_text, hgrc_text
from hgfleet.config.schema import MirrorsSection
from hgfleet.errors import RejectedError


@click.group("render")
def render_group() -> None:
    """Print the configuration of the programs around hgfleet."""


@render_group.command("haproxy")
@fleet_options
def print_haproxy(fleet: Fleet) -> None:
    """Print HAProxy's configuration: for the balancer's host, or for the HTTP side of one machine."""
    if not fleet.config.hosts:
        _check_one_machine(fleet.config.mirrors)
    click.echo(haproxy_text(fleet.layout), nl=False)


def _check_one_machine(mirrors: MirrorsSection) -> None:
    """Raise RejectedError where `hgfleet up` would start no HAProxy, or at ports of its own choice."""
    if mirrors.count == 1:
        raise RejectedError(
            "render.one-mirror",
            "one mirror needs no HAProxy: its web workers own the ports",
            hint="see mirrors.count",
        )
    if not mirrors.ports:
        raise RejectedError(
            "render.no-ports", "the mirrors' ports are chosen at each start", hint="set mirrors.ports"
        )


@render_group.command("sshd")
@fleet_options
def print_sshd(fleet: Fleet) -> None:
    """Print the configuration of OpenSSH's server, for ssh.kind = "openssh"."""
    if fleet.config.ssh.kind != "openssh":
        raise RejectedError(
            "render.embedded-ssh",
            "this fleet's SSH server is the embedded one",
            hint="see ssh.kind",
        )
    click.echo(sshd_config_text(fleet.layout), nl=False)


@render_group.command("hgrc")
@fleet_options
def print_hgrc(fleet: Fleet) -> None:
    """Print the hgrc that the primary's sessions are served with."""
    click.echo(hgrc_text(fleet.layout), nl=False)
