"""The fleets that behaviour tests run on; each is started once, tests use repositories of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet

_numbers = itertools.count(1)

# Tests that hold a mirror still look around meanwhile: longer than the default lease on a busy machine.
LONG_LEASE = """
[membership]
lease = "10m"
self_stale = "5m"
"""


@pytest.fixture(scope="session")
def one_mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet as `make up` starts it."""
    yield from _running(tmp_path_factory.mktemp("one") / "fleet", mirrors=1)


@pytest.fixture(scope="session")
def two_mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of two mirrors behind HAProxy."""
    yield from _running(tmp_path_factory.mktemp("two") / "fleet", mirrors=2)


def _running(directory: Path, *, mirrors: int) -> Iterator[Fleet]:
    fleet = Fleet(directory, mirrors=mirrors, config=LONG_LEASE)
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def repository() -> str:
    """A repository path that no other test uses."""
    return f"tests/repo{next(_numbers)}"
