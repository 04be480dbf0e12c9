"""What every measurement is given: how often, where, and fleets to measure."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Setting:
    """How often to measure, and where there is room for it."""

    runs: int
    directory: Path  # of this measurement alone; emptied between fleets
    is_quick: bool = False

    @contextmanager
    def fleet(self, mirrors: int, *options: str) -> Iterator[Fleet]:
        """Run a fleet for as long as it is measured, and remove everything of it afterwards."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        fleet = Fleet(self.directory / "fleet", mirrors=mirrors, options=options)
        fleet.start()
        try:
            yield fleet
        finally:
            fleet.close()
