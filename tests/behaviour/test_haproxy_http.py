"""The rendered configuration in a real HAProxy, in front of mirrors whose answers a test decides."""

from __future__ import annotations

import concurrent.futures
import http.client
import os
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hgfleet.adapters.haproxy_config import (
    LAST_RESORT_HEADER,
    SEEN_HEADER,
    STALE_HEADER,
    Mirror,
    render_haproxy,
)
from hgfleet.errors import ConfigError
from tests.support.load_balancer import (
    Asked,
    Backend,
    Certificate,
    LoadBalancer,
    check,
    load_balancer,
    make_certificate,
    seen_header,
)

GETBUNDLE = "/app?cmd=getbundle"


@dataclass
class Proxy:
    """A running HAProxy with its mirrors."""

    balancer: LoadBalancer
    mirrors: tuple[Backend, ...]

    def __post_init__(self) -> None:
        self.ask = self.balancer.ask
        self.wait_for = self.balancer.wait

    def asked(self, method: str, path: str) -> list[Asked]:
        """What any mirror got of a request."""
        return [a for m in self.mirrors for a in m.seen if (a.method, a.path) == (method, path)]

    def by_affinity(self, path: str) -> tuple[Backend, Backend, Backend]:
        """The mirror that gets the requests for a repository, then the others."""
        name = self.ask(path).text
        ordered = sorted(self.mirrors, key=lambda mirror: mirror.name != name)
        return ordered[0], ordered[1], ordered[2]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("a directory"))


@pytest.fixture
def backends(certificate: Certificate) -> Iterator[tuple[Backend, ...]]:
    made = tuple(Backend(name, certificate) for name in ("m1", "m2", "m3"))
    yield made
    for backend in made:
        backend.close()


@pytest.fixture
def proxy(certificate: Certificate, backends: tuple[Backend, ...], tmp_path: Path) -> Iterator[Proxy]:
    mirrors = tuple(backend.mirror for backend in backends)
    with load_balancer(
        mirrors, certificate, tmp_path, control_socket=Path("/tmp") / f"{os.getpid()}.lb"
    ) as up:
        yield Proxy(up, backends)


def test_the_plain_port_redirects_everything_and_keeps_path_and_query(proxy: Proxy) -> None:
    options = proxy.balancer.options
    for method, target in (("GET", "/team/app?cmd=capabilities&x=%2F"), ("POST", "/"), ("GET", "/-/livez")):
        connection = http.client.HTTPConnection("127.0.0.1", options.http_port, timeout=10)
        connection.request(method, target, headers={"Host": "evil.example"})
        answer = connection.getresponse()
        assert answer.status == 301
        assert answer.headers["Location"] == f"https://localhost:{options.https_port}{target}"
        connection.close()


def test_the_redirect_names_the_port_that_clients_use(proxy: Proxy) -> None:
    text = render_haproxy(replace(proxy.balancer.options, public_port=443, public_name="hg.example"))
    assert "location https://hg.example%[pathq]" in text


# ---- affinity


def test_a_repository_stays_on_one_mirror_whatever_page_is_asked_for_and_by_whom(proxy: Proxy) -> None:
    owners = set()
    for number in range(12):
        repository = f"/team/app{number}"
        pages = (
            "",
            "/",
            "/rev/abc",
            "/json-log/tip",
            "/file/tip/a/log/b",
            "/json-pushes?version=2",
            "?cmd=heads",
        )
        clients = ("127.0.0.2", "127.0.0.3")
        names = {proxy.ask(repository + page, source=client).text for page in pages for client in clients}
        assert len(names) == 1, repository
        owners |= names
    assert owners == {"m1", "m2", "m3"}, "the repositories are spread over the mirrors"


def test_what_a_busy_mirror_cannot_take_goes_to_the_others(proxy: Proxy) -> None:
    owner, *_ = proxy.by_affinity("/hot")
    for mirror in proxy.mirrors:
        mirror.go_on.clear()
    with concurrent.futures.ThreadPoolExecutor(26) as pool:
        waiting = [pool.submit(proxy.ask, "/hot") for _ in range(26)]
        proxy.wait_for(lambda: sum(m.busy for m in proxy.mirrors) == 26, "all requests are with a mirror")
        load = {mirror.name: mirror.busy for mirror in proxy.mirrors}
        for mirror in proxy.mirrors:
            mirror.go_on.set()
        assert {answer.result().status for answer in waiting} == {200}
    quiet = proxy.balancer.options.quiet_requests
    assert quiet < load[owner.name] <= quiet + 2 + 9, f"half as much again as its share of the others: {load}"


def test_every_request_says_what_was_seen_of_the_repository_so_far(proxy: Proxy) -> None:
    owner, other, last = proxy.by_affinity("/app")
    assert SEEN_HEADER.lower() not in owner.seen[-1].headers
    owner.show("r1", 5)
    for page in ("/app", "/app/json-log", "/app?cmd=heads"):
        proxy.ask(page, source="127.0.0.7")
    assert owner.seen[-1].headers[SEEN_HEADER.lower()] == seen_header("r1", 5)
    owner.status = 502
    other.show("r1", 4)
    last.show("r1", 4)
    proxy.ask("/app")
    proxy.ask("/app")
    [*_, asked] = other.seen or last.seen
    assert asked.headers[SEEN_HEADER.lower()] == seen_header("r1", 5), "an older answer lowers nothing"


def test_a_new_repository_under_an_old_path_starts_anew(proxy: Proxy) -> None:
    owner, _, _ = proxy.by_affinity("/app")
    for repository, seq in (("r1", 50), ("r2", 2)):
        owner.show(repository, seq)
        proxy.ask("/app")
    proxy.ask("/app")
    assert owner.seen[-1].headers[SEEN_HEADER.lower()] == seen_header("r2", 2)


# ---- retries


def test_a_502_is_tried_once_on_another_mirror_and_a_503_never(proxy: Proxy) -> None:
    owner, *others = proxy.by_affinity("/parked")
    owner.status = 502
    answer = proxy.ask("/parked")
    assert (answer.status, answer.text in {m.name for m in others}) == (200, True)
    owner.status = 503
    assert (proxy.ask("/parked").status, proxy.ask("/parked").text) == (503, owner.name)
    for mirror in proxy.mirrors:
        mirror.status = 502
    before = len(proxy.asked("GET", "/parked"))
    assert proxy.ask("/parked").status == 502
    assert len(proxy.asked("GET", "/parked")) - before == 2, "one retry, not more"


def test_a_read_with_a_body_is_tried_again_with_the_same_body(proxy: Proxy) -> None:
    owner, *_ = proxy.by_affinity("/app")
    owner.status = 502
    body = os.urandom(300_000)
    assert proxy.ask(GETBUNDLE, "POST", body=body).status == 200
    first, second = proxy.asked("POST", GETBUNDLE)
    assert first.body == second.body == body


def test_a_body_that_is_too_large_to_be_kept_is_sent_once(proxy: Proxy) -> None:
    owner, *_ = proxy.by_affinity("/app")
    owner.status = 502
    body = os.urandom(3_000_000)
    assert proxy.ask(GETBUNDLE, "POST", body=body).status == 502
    assert [asked.body == body for asked in proxy.asked("POST", GETBUNDLE)] == [True]


@pytest.mark.parametrize(
    "request_line", [("POST", "/app?cmd=unbundle"), ("POST", "/app"), ("PUT", GETBUNDLE)]
)
def test_a_request_that_may_not_be_repeated_is_not(proxy: Proxy, request_line: tuple[str, str]) -> None:
    method, target = request_line
    owner, *_ = proxy.by_affinity("/app")
    owner.status = 502
    assert proxy.ask(target, method, body=b"x").status == 502
    assert len(proxy.asked(method, target)) == 1


# ---- who is in the pool


def test_a_mirror_that_is_not_ready_gets_nothing_until_it_is_ready_again(proxy: Proxy) -> None:
    owner, *others = proxy.by_affinity("/app")
    owner.is_ready = False
    proxy.wait_for(lambda: proxy.ask("/app").text != owner.name, "another mirror takes over")
    assert {proxy.ask(f"/app{n}").text for n in range(12)} == {mirror.name for mirror in others}
    owner.is_ready = True
    proxy.wait_for(lambda: proxy.ask("/app").text == owner.name, "the mirror takes its repositories back")


def test_with_no_ready_mirror_those_alive_answer_and_are_marked_stale_on_both_sides(proxy: Proxy) -> None:
    owner, *_ = proxy.by_affinity("/app")
    owner.show("r1", 5)
    assert STALE_HEADER not in proxy.ask("/app").headers
    for mirror in proxy.mirrors:
        mirror.is_ready = False
    proxy.wait_for(lambda: STALE_HEADER in proxy.ask("/app").headers, "the last-resort group answers")
    assert proxy.ask("/app").status == 200
    marked = [a for a in proxy.asked("GET", "/app") if LAST_RESORT_HEADER.lower() in a.headers]
    assert marked
    assert not any(SEEN_HEADER.lower() in a.headers for a in marked), "any answer is better than none"
    for mirror in proxy.mirrors[:2]:
        mirror.is_alive = False
    proxy.wait_for(lambda: {proxy.ask(f"/{n}").text for n in range(9)} == {"m3"}, "only the live one answers")
    proxy.mirrors[1].is_ready = True
    proxy.wait_for(lambda: STALE_HEADER not in proxy.ask("/app").headers, "a ready mirror takes over again")
    proxy.ask("/app")
    assert LAST_RESORT_HEADER.lower() not in proxy.mirrors[1].seen[-1].headers


# ---- what passes


def test_what_a_client_says_about_its_origin_is_replaced(proxy: Proxy) -> None:
    lies = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=10.0.0.1",
        "X_Forwarded_For": "10.0.0.2",
        "SCRIPT_NAME": "/x",
        "Hgfleet_Seen": "1:2",
        SEEN_HEADER: "1:999",
        LAST_RESORT_HEADER: "1",
    }
    answer = proxy.ask("/app", headers=lies, source="127.0.0.9")
    [asked] = proxy.asked("GET", "/app")
    assert asked.headers["x-forwarded-for"] == "127.0.0.9"
    assert asked.headers["x-forwarded-proto"] == "https"
    assert not {name for name in asked.headers if "_" in name or "hgfleet" in name or name == "forwarded"}
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_answers_of_its_own_have_the_security_headers_too_and_say_when_to_come_back(proxy: Proxy) -> None:
    for mirror in proxy.mirrors:
        mirror.is_ready = mirror.is_alive = False
    proxy.wait_for(lambda: proxy.ask("/app").text.startswith("<html>"), "HAProxy answers by itself")
    answer = proxy.ask("/app")
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_the_admin_pages_do_not_exist_for_the_public(proxy: Proxy) -> None:
    for path in ("/-/status", "/-/metrics", "/-/Metrics?x", "/-/status/"):
        assert proxy.ask(path).status == 404
    assert not any(mirror.seen for mirror in proxy.mirrors)


def test_a_request_with_thousands_of_heads_in_its_headers_passes(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client, "_MAXHEADERS", 1000)  # the limit of the test's own backends
    many = {f"X-HgArg-{n}": "a" * 1000 for n in range(1, 430)}
    assert proxy.ask(GETBUNDLE, headers=many).status == 200
    assert len(proxy.asked("GET", GETBUNDLE)[0].headers) > 429


# ---- the process


def test_a_mirror_whose_certificate_is_not_trusted_gets_nothing(
    certificate: Certificate, backends: tuple[Backend, ...], tmp_path: Path
) -> None:
    mirrors = tuple(replace(backend.mirror, certificate_name="other") for backend in backends)
    with load_balancer(mirrors, certificate, tmp_path) as strict:
        assert strict.ask("/app").status == 503
    assert not any(backend.seen for backend in backends)


def test_only_the_owner_may_use_the_control_socket(proxy: Proxy) -> None:
    path = proxy.balancer.options.control_socket
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(path))
        control.sendall(b"show stat\n")
        assert b"mirrors,m1," in control.recv(100_000)


def test_a_reload_loses_no_request(
    certificate: Certificate, backends: tuple[Backend, ...], tmp_path: Path
) -> None:
    """The master process of `haproxy -W`, as systemd runs it, is told to start over while requests go on."""
    mirrors = tuple(backend.mirror for backend in backends)
    with load_balancer(mirrors, certificate, tmp_path, control_socket=tmp_path / "lb") as balancer:
        balancer.close()
        balancer.start("-W")
        over = threading.Event()

        def keep_asking() -> list[int]:
            found = []
            while not over.is_set():
                found.append(balancer.ask(f"/app{len(found) % 7}").status)
            return found

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            askers = [pool.submit(keep_asking) for _ in range(3)]
            try:
                for _ in range(3):
                    balancer.reload()
            finally:
                over.set()
            statuses = [status for asker in askers for status in asker.result()]
    assert set(statuses) == {200}
    assert len(statuses) >= 3


def test_a_value_that_could_break_out_of_its_line_is_refused(proxy: Proxy) -> None:
    bad: tuple[dict[str, object], ...] = (
        {"public_name": "a b"},
        {"public_name": "a\nb"},
        {"certificate_file": Path("/x'y.pem")},
        {"mirrors": (Mirror("m 1", "127.0.0.1", 1),)},
        {"mirrors": (Mirror("m1", "127.0.0.1", 1, "x y"),)},
        {"mirrors": (Mirror("m1", "a:b c", 1),)},
        {"mirrors": ()},
    )
    for change in bad:
        with pytest.raises(ConfigError):
            render_haproxy(replace(proxy.balancer.options, **change))  # type: ignore[arg-type]


def test_ipv6_addresses_are_accepted(certificate: Certificate, tmp_path: Path, proxy: Proxy) -> None:
    mirror = Mirror("m1", "::1", 1443)
    check(replace(proxy.balancer.options, bind_address="::1", mirrors=(mirror,)), tmp_path)
