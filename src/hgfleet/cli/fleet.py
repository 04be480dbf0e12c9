"""Finds the fleet that a command is about: by option, by environment, or in ./hgfleet-data.

Promises: --config and --dir win over HGFLEET_CONFIG and HGFLEET_DIR, in that order; a fleet that runs is seen
with the options it was started with.
Does not: start anything.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.local_client import LocalClient
from hgfleet.cli.this_host import find_this_host
from hgfleet.config.layout import CONFIG_NAME, FleetLayout
from hgfleet.config.load import load_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError

DEFAULT_DIRECTORY = Path("hgfleet-data")
CALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fleet's configuration file is, whether it exists or not, and its directory."""

    config_path: Path
    directory: Path
    host: str | None = None  # which host of the file this machine is said to be


@dataclass(frozen=True, slots=True)
class Fleet:
    """One fleet as a command sees it."""

    place: Place
    config: FleetConfig

    @property
    def layout(self) -> FleetLayout:
        """Where its files lie on this machine. Raises ConfigError where that is none of its hosts."""
        return FleetLayout(self.config, find_this_host(self.config, self.place.host))

    @property
    def host(self) -> str | None:
        """The host of the file that this machine is, as processes are told."""
        return self.layout.own

    def agent(self) -> LogAgentClient:
        """Return a client of its log agent, which need not run until something is asked."""
        return LogAgentClient(self.layout.agent_socket, CALL_SECONDS)

    def sessions(self, timeout_seconds: float = CALL_SECONDS) -> LocalClient:
        """Connect to its session server. Raises TransientError when it does not run."""
        return LocalClient(self.layout.sessions_socket, timeout_seconds)


def find_place(config: Path | None, directory: Path | None, host: str | None = None) -> Place:
    """Decide which fleet is meant; raise ConfigError when two are named at once."""
    if config is not None and directory is not None:
        raise ConfigError("cli.two-places", "--config and --dir exclude each other")
    if config is None and directory is None:
        config = _path_from("HGFLEET_CONFIG")
        directory = None if config else _path_from("HGFLEET_DIR")
    path = config if config is not None else (directory or DEFAULT_DIRECTORY) / CONFIG_NAME
    return Place(path.absolute(), path.absolute().parent, host)


def open_fleet(place: Place) -> Fleet:
    """Read the fleet's configuration, or the one in force while it runs. Raises ConfigError."""
    fleet = Fleet(place, load_config(place.config_path))
    if fleet.config.hosts:
        return fleet
    effective = fleet.layout.effective_config
    return Fleet(place, load_config(effective)) if effective.exists() else fleet


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config, --dir and --host to a command, which gets a `place`."""

    @click.option(
        "--config", "config_", type=click.Path(path_type=Path), help="the fleet's configuration file"
    )
    @click.option("--dir", "directory", type=click.Path(path_type=Path), help="the fleet's directory")
    @click.option("--host", help="which of the configuration's hosts this machine is")
    @functools.wraps(command)
    def wrapper(
        *args: Any, config_: Path | None, directory: Path | None, host: str | None, **kwargs: Any
    ) -> Any:
        return command(*args, place=find_place(config_, directory, host), **kwargs)

    return wrapper


def fleet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config, --dir and --host to a command, which gets the `fleet` opened."""

    @place_options
    @functools.wraps(command)
    def wrapper(*args: Any, place: Place, **kwargs: Any) -> Any:
        return command(*args, fleet=open_fleet(place), **kwargs)

    return wrapper


def _path_from(variable: str) -> Path | None:
    text = os.environ.get(variable, "")
    return Path(text) if text else None
