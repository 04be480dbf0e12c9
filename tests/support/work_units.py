"""What the workers of a test run take as a whole: a module, and everything that runs on several hosts.

Promises: a fixture of a module, and the site of several hosts, are made in one worker only; units are taken
in the order of the collection.
Does not: use marks for groups: xdist carries them in the tests' names, which pytest 9.2 keeps as they are.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

HOSTS = "hosts"
_ROOT = Path(__file__).resolve().parents[2]


class UnitScheduling(LoadScopeScheduling):
    """Gives each worker one unit after the other."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def unit_of(nodeid: str) -> str:
    """Return the unit that a test belongs to; its name is all that is known where units are given out."""
    module, _, test = nodeid.partition("::")
    topologies = test.partition("[")[2].rstrip("]").split("-")
    return HOSTS if HOSTS in topologies or _names_the_site(module) else module


@functools.cache
def _names_the_site(module: str) -> bool:
    return "hosts_site" in (_ROOT / module).read_text()
