"""What every measurement is given: how often, where, and fleets to measure."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    def fleet(
        self, mirrors: int, *, visible_wait: str = "2s", changes: Mapping[str, Any] | None = None
    ) -> Iterator[Fleet]:
        """Run a fleet, in an empty directory, for as long as it is measured.

        `changes` are settings by table that differ from what a new fleet has.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        fleet = Fleet(self.directory / "fleet", mirrors=mirrors)
        self._configure(fleet, {"push": {"visible_wait": visible_wait}, **(changes or {})})
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()

    def _configure(self, fleet: Fleet, changes: Mapping[str, Any]) -> None:
        """Write the fleet's configuration with few settings changed, and make its topics."""
        fleet.cli("config", "init").ok()
        [path] = fleet.directory.glob("*.toml")
        tables = tomlkit.parse(path.read_text())
        log = tomllib.loads(fleet_config(self.kafka, new_prefix())) if self.kafka is not None else {}
        for name, table in (*changes.items(), *log.items()):
            tables.setdefault(name, tomlkit.table()).update(table)
        path.write_text(tomlkit.dumps(tables))
        if self.kafka is not None:
            fleet.cli("log", "create").ok()
