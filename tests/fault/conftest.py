"""Fleets for fault tests: of their own, because what happens to them should not meet other tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One mirror, faults allowed."""
    fleet = Fleet(tmp_path_factory.mktemp("fault") / "fleet")
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def repository() -> str:
    """A repository path that no other test uses."""
    return f"faults/repo{next(_numbers)}"
