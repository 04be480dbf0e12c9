"""`hgfleet render`: the configuration of the programs around hgfleet, as text.

Promises: prints what `hgfleet up` would give them, from the configuration alone.
Does not: reload anything, or write but where it is told to.
"""

from __future__ import annotations

from pathlib import Path

import click

from hgfleet.adapters.files import write_by_rename
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.openssh import sshd_config_text
from hgfleet.cli.rendered_files import haproxy_text, hgrc_text
from hgfleet.cli.units import unit_texts
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


@render_group.command("systemd")
@click.option("--user", default="hgfleet", show_default=True, help="the account that hgfleet runs as")
@click.option(
    "--to",
    "directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="write one file per unit there instead of printing them",
)
@fleet_options
def print_units(fleet: Fleet, user: str, directory: Path | None) -> None:
    """Print the systemd units of this host: one per role."""
    texts = unit_texts(fleet.layout, fleet.place, user)
    for name, text in texts.items():
        if directory is None:
            click.echo(f"# {name}\n{text}")
        else:
            write_by_rename(directory / name, text.encode(), mode=0o644)
            click.echo(f"wrote {directory / name}")


@render_group.command("hgrc")
@fleet_options
def print_hgrc(fleet: Fleet) -> None:
    """Print the hgrc that the primary's sessions are served with."""
    click.echo(hgrc_text(fleet.layout), nl=False)
