"""The fleets that behaviour tests run on; each is started once, tests use repositories of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.fleet import Fleet
from tests.support.hosts_fleet import HostsFleet, Surroundings
from tests.support.openssh import OpenSshFleet

# What a fixture stands for in a module that is marked `every_topology`.
TOPOLOGIES = {
    "one_mirror": ("embedded_front", "hosts"),
    "two_mirrors": ("two_on_one_machine", "hosts"),
}
_numbers = itertools.count(1)

# Tests that hold a mirror still look around meanwhile: longer than the default lease on a busy machine.
LONG_LEASE = """
[membership]
lease = "10m"
self_stale = "5m"
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of marked modules on every topology, unless a test is about one machine's own surface."""
    marked = metafunc.definition.get_closest_marker
    if marked("every_topology") is None or marked("one_machine") is not None:
        return
    chosen = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    for fixture, topologies in TOPOLOGIES.items():
        if fixture in metafunc.fixturenames and fixture not in chosen:
            metafunc.parametrize(fixture, topologies, indirect=True)


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


@pytest.fixture
def two_mirrors(request: pytest.FixtureRequest) -> Fleet:
    """A fleet of two mirrors or more behind HAProxy: on one machine, or on several hosts."""
    fleet: Fleet = request.getfixturevalue(getattr(request, "param", "two_on_one_machine"))
    return fleet


@pytest.fixture(scope="session")
def two_on_one_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of two mirrors as `hgfleet up` runs it."""
    yield from _running(Fleet(tmp_path_factory.mktemp("two") / "fleet", mirrors=2, config=LONG_LEASE))


@pytest.fixture(scope="package")
def hosts(hosts_site: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A primary and three mirrors on hosts of their own, with Kafka, LDAP and S3, behind HAProxy."""
    directory = tmp_path_factory.mktemp("hosts") / "fleet"
    yield from _running(HostsFleet(directory, hosts_site, name="behaviour", config=LONG_LEASE))


def _running(fleet: Fleet) -> Iterator[Fleet]:
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def repository() -> str:
    """A repository path that no other test uses."""
    return f"tests/repo{next(_numbers)}"
