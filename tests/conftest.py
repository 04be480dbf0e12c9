"""What every test run needs, whoever starts it: programs on the PATH and settings of hypothesis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

    from tests.support.hosts_fleet import Surroundings
    from tests.support.kafka import KafkaCluster
    from tests.support.s3_server import S3Server
    from tests.support.slapd import Slapd

pytest.register_assert_rewrite("tests.support")

_ROOT = Path(__file__).resolve().parent.parent
_FIRST, _LAST = _ROOT / ".venv" / "bin", _ROOT / ".tools" / "bin"
os.environ["PATH"] = os.pathsep.join([str(_FIRST), os.environ.get("PATH", os.defpath), str(_LAST)])

# No deadline per example: machines that test many things at once are slow at random.
settings.register_profile("dev", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=300, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# In a run of several workers what takes longest begins first, so that all end at about the same time.
_LONGEST_FIRST = ("fault", "behaviour", "contract", "transcripts", "property", "unit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Give workers whole units, so that what is shared in one is made once."""
    from tests.support.work_units import UnitScheduling

    return UnitScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what runs on several hosts first where there are several workers, else last.

    Until then nothing of theirs needs a processor.
    """
    from tests.support.work_units import HOSTS, unit_of

    on_hosts = {item.nodeid for item in items if unit_of(item.nodeid) == HOSTS}
    for item in items:
        uses = "hosts_site" in getattr(item, "fixturenames", ())
        if uses and item.nodeid not in on_hosts:
            raise pytest.UsageError(
                f"{item.nodeid}: name hosts_site in its module, or parametrize with hosts"
            )
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (item.nodeid not in on_hosts, _rank(item)))
    else:
        items.sort(key=lambda item: item.nodeid in on_hosts)


def _rank(item: pytest.Item) -> int:
    part = item.path.relative_to(_ROOT / "tests").parts[0]
    return _LONGEST_FIRST.index(part) if part in _LONGEST_FIRST else 0


def pytest_report_header() -> list[str]:
    """Name the Mercurial clients that tests of old ones do without."""
    from tests.support.clients import left_out

    missing = ", ".join(left_out())
    return [f"left out: Mercurial {missing}, for there is no Python 2.7 here"] if missing else []


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """One broker for the whole run; each test uses topics of its own and leaves the broker running."""
    from tests.support.kafka import running_kafka

    with running_kafka(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole run; a test makes its own buckets, and leaves the server running."""
    from tests.support.s3_server import running_s3_server  # after its assertions were made to speak

    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A real LDAP server for the whole run; a test adds its own accounts, and leaves the server running."""
    from tests.support.slapd import running_slapd

    with running_slapd(tmp_path_factory.mktemp("slapd")) as server:
        yield server


@pytest.fixture(scope="session")
def hosts_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """The network and the site of fleets of several hosts, for the whole run; one fleet at a time."""
    from tests.support.hosts_fleet import Surroundings

    with Surroundings(tmp_path_factory.mktemp("site")) as site:
        yield site
