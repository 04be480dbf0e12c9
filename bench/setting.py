"""What every measurement is given: how often, where, and fleets to measure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from tests.support.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Setting:
    """How often to measure, and where there is room for it."""

    runs: int
    directory: Path  # of this measurement alone; emptied between fleets
    is_quick: bool = False

    @contextmanager
    def fleet(self, mirrors: int, *, visible_wait: str = "2s") -> Iterator[Fleet]:
        """Run a fleet, in an empty directory, for as long as it is measured."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        fleet = Fleet(self.directory / "fleet", mirrors=mirrors)
        _configure(fleet, visible_wait)
        fleet.start()
        try:
            yield fleet
        finally:
            fleet.close()


def _configure(fleet: Fleet, visible_wait: str) -> None:
    """Write the fleet's configuration with one setting changed."""
    fleet.cli("config", "init").ok()
    [path] = fleet.directory.glob("*.toml")
    tables = tomlkit.parse(path.read_text())
    tables["push"]["visible_wait"] = visible_wait
    path.write_text(tomlkit.dumps(tables))
