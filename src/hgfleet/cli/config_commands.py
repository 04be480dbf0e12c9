"""`hgfleet config`: write, check and show the configuration file.

Promises: `init` never overwrites a file; `check` reports every problem at once and exits 78 on any.
Does not: change a running fleet; settings are read at its next start.
"""

from __future__ import annotations

import click

from hgfleet.adapters.files import write_by_rename
from hgfleet.cli.fleet import Place, open_fleet, place_options
from hgfleet.cli.output import json_option, print_json
from hgfleet.config.load import load_config
from hgfleet.config.render import config_values, render_config, render_default_config
from hgfleet.errors import RejectedError


@click.group("config")
def config_group() -> None:
    """Write, check and show the configuration."""


@config_group.command("init")
@place_options
def init_config(place: Place) -> None:
    """Write a configuration file with every key and its comment."""
    path = place.config_path
    if path.exists():
        raise RejectedError("config.exists", "there is a configuration file already", path=path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_by_rename(path, render_default_config({}).encode())
    click.echo(f"wrote {path}")


@config_group.command("check")
@place_options
def check_config(place: Place) -> None:
    """Say everything that is wrong with the configuration file."""
    load_config(place.config_path)
    click.echo(f"{place.config_path}: no problems")


@config_group.command("show")
@place_options
@json_option
def show_config(place: Place, *, as_json: bool) -> None:
    """Print the settings in force, with all defaults and absolute paths."""
    config = open_fleet(place).config
    if as_json:
        print_json(config_values(config))
    else:
        click.echo(render_config(config).lstrip(), nl=False)
