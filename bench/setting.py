"""What every measurement is given: how often, where, and fleets to measure."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from tests.support.fleet import Fleet
from tests.support.kafka import KafkaCluster
from tests.support.kafka_topics import fleet_config, new_prefix


@dataclass(frozen=True, slots=True)
class Setting:
    """How often to measure, and where there is room for it."""

    runs: int
    directory: Path  # of this measurement alone; emptied between fleets
    is_quick: bool = False
    kafka: KafkaCluster | None = None  # where fleets have their log; None: embedded

    @contextmanager
    def fleet(self, mirrors: int, *, visible_wait: str = "2s") -> Iterator[Fleet]:
        """Run a fleet, in an empty directory, for as long as it is measured."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        fleet = Fleet(self.directory / "fleet", mirrors=mirrors)
        self._configure(fleet, visible_wait)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()

    def _configure(self, fleet: Fleet, visible_wait: str) -> None:
        """Write the fleet's configuration with few settings changed, and make its topics."""
        fleet.cli("config", "init").ok()
        [path] = fleet.directory.glob("*.toml")
        tables = tomlkit.parse(path.read_text())
        tables["push"]["visible_wait"] = visible_wait
        if self.kafka is not None:
            for name, table in tomllib.loads(fleet_config(self.kafka, new_prefix())).items():
                tables[name].update(table)
        path.write_text(tomlkit.dumps(tables))
        if self.kafka is not None:
            fleet.cli("log", "create").ok()
