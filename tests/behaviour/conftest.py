"""The fleets that behaviour tests run on; each is started once, tests use repositories of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet
from tests.support.openssh import OpenSshFleet

_numbers = itertools.count(1)

# Tests that hold a mirror still look around meanwhile: longer than the default lease on a busy machine.
LONG_LEASE = """
[membership]
lease = "10m"
self_stale = "5m"
"""


@pytest.fixture
def one_mirror(request: pytest.FixtureRequest) -> Fleet:
    """A fleet of one mirror, as `make up` starts it unless a test asks for another SSH front (FRONTS)."""
    fleet: Fleet = request.getfixturevalue(getattr(request, "param", "embedded_front"))
    return fleet


@pytest.fixture(scope="session")
def embedded_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet as `make up` starts it."""
    yield from _running(Fleet(tmp_path_factory.mktemp("one") / "fleet", config=LONG_LEASE))


@pytest.fixture(scope="session")
def openssh_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The same behind a real sshd."""
    yield from _running(OpenSshFleet(tmp_path_factory.mktemp("openssh") / "fleet", config=LONG_LEASE))


@pytest.fixture(scope="session")
def two_mirrors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of two mirrors behind HAProxy."""
    yield from _running(Fleet(tmp_path_factory.mktemp("two") / "fleet", mirrors=2, config=LONG_LEASE))


def _running(fleet: Fleet) -> Iterator[Fleet]:
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def repository() -> str:
    """A repository path that no other test uses."""
    return f"tests/repo{next(_numbers)}"
