"""Clients that come to the origin for everything are answered in bounded number, beside everybody else."""

from __future__ import annotations

import concurrent.futures
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters.demand_counts import DemandCounts
from hgfleet.adapters.haproxy_config import LAST_RESORT_HEADER
from hgfleet.model.fleet_records import Stage
from hgfleet.model.ids import Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import Exposures, build
from tests.support.mirror_host import MirrorHost
from tests.support.waiting import wait_until
from tests.support.web_process import CloneLaneProcess, WebProcess

STEPS = ("first changesets", "much that cannot be compressed")
LAST = Seq(len(STEPS))
NULL = "0" * 40
LARGE_BYTES = 24 * 1024 * 1024  # more than every buffer between the lane and a client that reads nothing
PLACES = 2
CAPABILITIES = "bundlecaps=HG20%2Cbundle2%3DHG20%250Achangegroup%253D01%252C02"


class Origin:
    """A mirror with its lane."""

    def __init__(self, directory: Path, exposures: Exposures) -> None:
        self.host = MirrorHost(directory / "host")
        self.host.add("small", exposures.copy(Seq(1)), Seq(1))
        self.host.add("large", exposures.full, LAST)
        site = self.host.site()
        self.lane = CloneLaneProcess(directory / "lane", site)
        bounded = replace(
            site, clone_lane=self.lane.socket, clone_places=PLACES, trusted_proxies=("127.0.0.0/8",)
        )
        self.web = WebProcess(directory / "web", bounded, workers=1, threads=4 * PLACES)
        self.client = self.web.client(HgClient(CURRENT_HG, directory))

    def question(self, path: str, head: str) -> str:
        return f"/{path}?cmd=getbundle&{CAPABILITIES}&cg=1&common={NULL}&heads={head}"

    def begin(self, stack: ExitStack, url: str) -> ssl.SSLSocket:
        """Ask, and read no more than the head of the answer."""
        connection = stack.enter_context(self.web.connect())
        connection.settimeout(60)
        connection.sendall(f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection

    def stop(self) -> None:
        self.web.stop()
        self.lane.kill()


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("origin")
    made = build(directory, HgClient(CURRENT_HG, directory), STEPS[:-1])
    noise = "".join(hex(number * 0x9E3779B97F4A7C15 % 2**64) for number in range(LARGE_BYTES // 16))
    made.commit("much", {"noise.txt": noise})
    made.push("-r", ".")
    made.applied(STEPS[-1])
    return made


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, exposures: Exposures) -> Iterator[Origin]:
    made = Origin(tmp_path_factory.mktemp("lane"), exposures)
    yield made
    made.stop()


@pytest.fixture
def own_origin(tmp_path: Path, exposures: Exposures) -> Iterator[Origin]:
    made = Origin(tmp_path, exposures)
    yield made
    made.stop()


def head_of(exposures: Exposures) -> str:
    return exposures.hg.run("-R", str(exposures.full), "log", "-r", "tip", "-T", "{node}").ok().out


def test_a_clone_through_the_lane_is_whole_and_says_what_it_shows(
    origin: Origin, exposures: Exposures, tmp_path: Path
) -> None:
    origin.client.run("clone", "-q", f"{origin.web.base_url}/large", str(tmp_path / "copy")).ok()
    log = ("log", "--hidden", "-r", "public()", "-T", "{node} {phase}\n")
    cloned = origin.client.run("-R", str(tmp_path / "copy"), *log).ok().out
    assert cloned == exposures.hg.run("-R", str(exposures.full), *log).ok().out
    wait_until(lambda: origin.lane.clones("large") == 1, what="the lane has made it")
    with ExitStack() as stack:
        connection = origin.begin(stack, origin.question("large", head_of(exposures)))
        head = connection.recv(4096).decode("latin-1").lower()
    assert f"x-hgfleet-seq: {LAST}\r\n" in head
    assert head.count("x-hgfleet-seq") == head.count("content-security-policy") == 1


def test_a_mirror_that_joins_again_makes_full_clones_as_a_last_resort_only(
    own_origin: Origin, exposures: Exposures
) -> None:
    own_origin.host.serve(Stage.JOINING, has_served=True)
    question = own_origin.question("large", head_of(exposures))
    assert own_origin.web.get(question)[0] == 502
    status, body = own_origin.web.get(question, **{LAST_RESORT_HEADER: "1"})
    assert (status, len(body) > LARGE_BYTES // 2) == (200, True)
    assert own_origin.lane.clones("large") == 1


def test_a_small_clone_is_made_once_for_all_who_want_the_same(
    origin: Origin, exposures: Exposures, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        origin.client.run("clone", "-q", f"{origin.web.base_url}/small", str(tmp_path / name)).ok()
    assert origin.lane.clones("small") == 1
    counts = DemandCounts(origin.host.directory / "demand.sqlite").last_day()
    assert sum(count.clones for count in counts.values()) >= 3


def test_more_clones_than_places_are_told_to_come_again_and_pulls_go_on(
    own_origin: Origin, exposures: Exposures, tmp_path: Path
) -> None:
    origin = own_origin
    large = origin.question("large", head_of(exposures))
    copy = str(tmp_path / "copy")
    origin.client.run("clone", "-q", f"{origin.web.base_url}/small", copy).ok()
    with ExitStack() as stack:
        slow = [origin.begin(stack, large) for _ in range(PLACES)]
        for connection in slow:  # each has its place once its answer has begun
            assert connection.recv(12) == b"HTTP/1.1 200"
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            refused = list(pool.map(lambda _: origin.web.get(large), range(20)))
        assert {status for status, _ in refused} == {503}
        assert refused[0][1] == b"too many full clones at the moment, try again later\n"
        refusal = origin.begin(stack, large).recv(4096)
        assert b"\r\nRetry-After: 30\r\n" in refusal
        origin.client.run("-R", copy, "pull", "-q", f"{origin.web.base_url}/small").ok()
        assert origin.web.get("/large?cmd=heads")[0] == 200
        failed = origin.client.run("clone", f"{origin.web.base_url}/large", str(tmp_path / "none"))
        assert failed.status in {100, 255}, failed
        assert "503: too many full clones at the moment, try again later" in failed.err
    wait_until(lambda: origin.web.get(large)[0] == 200, what="the places are free again")


def test_without_the_lane_clones_are_told_so_and_pulls_go_on(
    own_origin: Origin, exposures: Exposures, tmp_path: Path
) -> None:
    origin = own_origin
    large = origin.question("large", head_of(exposures))
    with ExitStack() as stack:
        begun = origin.begin(stack, large)
        assert begun.recv(12) == b"HTTP/1.1 200"
        origin.lane.kill()
        received = b""
        while chunk := begun.recv(1 << 20):
            received += chunk
        assert not received.endswith(b"\r\n0\r\n\r\n"), "a clone that was cut off must not look whole"
    status, body = origin.web.get(large)
    assert (status, body) == (503, b"full clones cannot be answered at the moment, try again later\n")
    assert origin.web.get("/large?cmd=heads")[0] == 200
