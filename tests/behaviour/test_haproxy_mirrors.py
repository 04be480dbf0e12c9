"""HAProxy in front of real web workers: what one client sees when it is sent from one mirror to another."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hgfleet.adapters.haproxy_config import STALE_HEADER, Mirror
from hgfleet.model.fleet_records import Stage
from hgfleet.model.ids import RepoId, RepoPath, Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import Exposures, build
from tests.support.load_balancer import Certificate, LoadBalancer, load_balancer
from tests.support.mirror_host import MirrorHost
from tests.support.web_process import WebProcess

STEPS = ("first changesets", "bookmarks", "a named branch", "a draft and a moved bookmark")
LAST = Seq(len(STEPS))
REPOSITORY = RepoId("ab" * 16)
PATHS = tuple(RepoPath(f"team/app{number}") for number in range(4))
UNFINISHED = b"POST /team/app0?cmd=batch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
HTML = {"Accept": "text/html"}


@dataclass
class Pair:
    """Two mirrors with the same repository behind HAProxy."""

    balancer: LoadBalancer
    hosts: tuple[MirrorHost, ...]
    webs: tuple[WebProcess, ...]

    def expose(self, *seqs: Seq) -> None:
        """Let each mirror show the repository as of its own seq."""
        for host, seq in zip(self.hosts, seqs, strict=True):
            host.expose(REPOSITORY, seq)

    def seq(self, path: str = PATHS[0]) -> int:
        """Return what a client is shown."""
        answer = self.balancer.ask(f"/{path}?cmd=heads")
        assert answer.status == 200, answer
        return int(answer.headers["X-HgFleet-Seq"])

    def owner(self) -> int:
        """Return which of the two has the repository by affinity."""
        before = [len(web.lines()) for web in self.webs]
        self.seq()
        self.balancer.wait(lambda: [len(web.lines()) for web in self.webs] != before, "one has logged it")
        return next(i for i, web in enumerate(self.webs) if len(web.lines()) > before[i])


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("small")
    return build(directory, HgClient(CURRENT_HG, directory), STEPS)


@pytest.fixture
def pair(exposures: Exposures, tmp_path: Path) -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        hosts = tuple(MirrorHost(tmp_path / name) for name in ("one", "two"))
        webs = []
        for number, host in enumerate(hosts):
            host.add(PATHS[0], exposures.full, Seq(1), REPOSITORY)
            site = replace(host.site(), trusted_proxies=("127.0.0.0/8",))
            web = WebProcess(tmp_path / f"web{number}", site, workers=1, threads=4)
            stack.callback(web.kill)
            webs.append(web)
        both = tmp_path / "both.pem"
        both.write_bytes(b"".join(f.read_bytes() for f in (webs[0].options.certificate, webs[0].options.key)))
        cas = tmp_path / "cas.pem"
        cas.write_text("".join(web.ca_file.read_text() for web in webs))
        mirrors = tuple(Mirror(f"m{n}", "127.0.0.1", web.port) for n, web in enumerate(webs))
        balancer = stack.enter_context(
            load_balancer(mirrors, Certificate(both, cas), tmp_path, quiet_requests=1)
        )
        yield Pair(balancer, hosts, tuple(webs))


def test_no_client_is_taken_back_by_a_mirror_that_shows_less(pair: Pair) -> None:
    """The mirror with the affinity shows more than the one that gets what it cannot take."""
    owner = pair.owner()
    pair.hosts[owner].expose(REPOSITORY, LAST)
    assert pair.seq() == LAST
    over = threading.Event()

    def read_on() -> list[int]:
        seen = []
        while not over.is_set():
            seen.append(pair.seq())
        return seen

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read_on) for _ in range(6)]
        try:
            pair.balancer.wait(
                lambda: _count(pair.webs[1 - owner], "502") > 3, "the other one was asked and refused"
            )
            pair.hosts[1 - owner].expose(REPOSITORY, LAST)
            pair.balancer.wait(lambda: _count(pair.webs[1 - owner], "200") > 3, "it has caught up and helps")
        finally:
            over.set()
        assert {seq for reader in readers for seq in reader.result()} == {LAST}


def test_when_the_mirror_ahead_is_lost_the_other_waits_for_the_exposure_and_answers(pair: Pair) -> None:
    owner = pair.owner()
    pair.hosts[owner].expose(REPOSITORY, LAST)
    assert pair.seq() == LAST
    pair.webs[owner].kill()
    refused = pair.balancer.ask(f"/{PATHS[0]}?cmd=heads")
    assert (refused.status, refused.text) == (502, "this mirror is behind what was already shown\n")
    late = threading.Timer(0.1, pair.hosts[1 - owner].expose, (REPOSITORY, LAST))
    late.start()
    assert pair.seq() == LAST, "a request that comes a little early is kept until the exposure"
    late.join()


def test_another_repository_under_the_same_path_is_answered_from_its_first_seq(
    pair: Pair, exposures: Exposures
) -> None:
    pair.expose(LAST, LAST)
    assert pair.seq() == LAST
    fresh = RepoId("cd" * 16)
    for host in pair.hosts:
        host.unbind(PATHS[0])
        host.add(PATHS[0], exposures.full, Seq(2), fresh)
    assert [pair.seq() for _ in range(3)] == [2, 2, 2]


def test_without_a_ready_mirror_reads_go_on_and_say_on_the_page_that_they_may_be_old(pair: Pair) -> None:
    pair.expose(LAST, LAST)
    fresh = pair.balancer.ask(f"/{PATHS[0]}/shortlog", headers=HTML)
    assert 'role="alert"' not in fresh.text
    for host in pair.hosts:
        host.serve(Stage.SERVING, lease_seconds=-1)
    path = f"/{PATHS[0]}/shortlog"
    pair.balancer.wait(lambda: STALE_HEADER in pair.balancer.ask(path).headers, "the last resort answers")
    for page in (path, "/"):
        answer = pair.balancer.ask(page, headers=HTML)
        assert (answer.status, 'role="alert"' in answer.text) == (200, True), answer
        assert "may be older" in answer.text
    assert "may be older" not in pair.balancer.ask(f"/{PATHS[0]}/json-log").text
    assert pair.seq() == LAST
    for host in pair.hosts:
        host.serve(Stage.SERVING)
    pair.balancer.wait(
        lambda: STALE_HEADER not in pair.balancer.ask(path).headers, "the mirrors answer again"
    )
    assert "may be older" not in pair.balancer.ask(path, headers=HTML).text


def test_a_client_cannot_ask_for_old_answers_or_for_a_refusal(pair: Pair) -> None:
    lies = {"Hgfleet-Last-Resort": "1", "Hgfleet-Seen": "1:99", **HTML}
    answer = pair.balancer.ask(f"/{PATHS[0]}/shortlog", headers=lies)
    assert answer.status == 200
    assert "may be older" not in answer.text


def test_a_mirror_whose_threads_are_all_busy_stays_in_the_pool_and_answers_what_waits(pair: Pair) -> None:
    """Else its load would go to the next mirror, which would be taken for dead in its turn."""
    pair.expose(LAST, LAST)
    [web, _] = pair.webs
    slow = [web.connect() for _ in range(4)]
    for client in slow:
        client.sendall(UNFINISHED)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(web.get, f"/{PATHS[0]}?cmd=heads") for _ in range(3)]
        for _ in range(30):
            assert web.get("/-/readyz") == (200, b"ready\n")
        assert not any(answer.done() for answer in waiting)
        for client in slow:
            client.close()
        assert [answer.result()[0] for answer in waiting] == [200, 200, 200]


def _count(web: WebProcess, status: str) -> int:
    lines = web.lines()
    return sum(line.get("event") == "request" and line.get("status") == status for line in lines)
