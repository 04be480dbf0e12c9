"""Real clients against the real server: workers with TLS, and the plain port beside them."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from hgfleet.model.ids import RepoId, Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import Exposures, build
from tests.support.mirror_host import MirrorHost
from tests.support.repositories import WorkingCopy
from tests.support.waiting import wait_until
from tests.support.web_process import WebProcess, running_redirect

STEPS = (
    "first changesets",
    "bookmarks",
    "a draft and a moved bookmark",
    "an amend with its markers",
    "a removed file",
)
LAST = Seq(len(STEPS))
MORE_THAN_THREADS = 9  # of both workers


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("served")
    made = build(directory, HgClient(CURRENT_HG, directory), STEPS[:-1])
    made.commit("with names outside ASCII", {"a.txt": "z\n"})
    made.push("-r", ".")
    made.server("bookmark", "-r", "tip", "zähler")
    made.applied(STEPS[-1])
    return made


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> MirrorHost:
    return MirrorHost(tmp_path_factory.mktemp("mirror") / "host")


@pytest.fixture(scope="module")
def repository(host: MirrorHost, exposures: Exposures) -> RepoId:
    return host.add("team/app", exposures.full, LAST)


@pytest.fixture(scope="module")
def server(
    host: MirrorHost, repository: RepoId, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebProcess]:
    process = WebProcess(tmp_path_factory.mktemp("web"), host.site())
    yield process
    assert process.stop() == 0


@pytest.fixture
def hg(server: WebProcess, tmp_path: Path) -> HgClient:
    return server.client(HgClient(CURRENT_HG, tmp_path, ("experimental.evolution=all",)))


def url(server: WebProcess) -> str:
    return f"{server.base_url}/team/app"


def shown(hg: HgClient, directory: Path) -> str:
    template = "{node} {phase} {bookmarks} {tags} {branch}\n"
    return hg.run("-R", str(directory), "log", "-T", template).ok().out


def test_a_clone_has_what_is_exposed(
    server: WebProcess, hg: HgClient, exposures: Exposures, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    hg.run("clone", "-q", url(server), str(clone)).ok()
    assert shown(hg, clone) == shown(hg, exposures.copy(LAST))
    hg.run("-R", str(clone), "verify").ok()


@pytest.mark.parametrize("seq", [2, 4])
def test_a_clone_of_a_lagging_mirror_equals_a_clone_of_the_replayed_copy(
    host: MirrorHost, server: WebProcess, hg: HgClient, exposures: Exposures, tmp_path: Path, seq: int
) -> None:
    host.add(f"lagging/at{seq}", exposures.full, Seq(seq))
    over_http, replayed = tmp_path / "http", tmp_path / "replayed"
    hg.run("clone", "-q", "-U", f"{server.base_url}/lagging/at{seq}", str(over_http)).ok()
    draft = ("--config", "phases.publish=no")
    hg.run("clone", "-q", "-U", "--pull", str(exposures.copy(Seq(seq))), str(replayed), *draft).ok()
    assert shown(hg, over_http) == shown(hg, replayed)
    markers = [hg.run("-R", str(where), "debugobsolete").ok().out for where in (over_http, replayed)]
    assert markers[0] == markers[1]


def test_names_outside_ascii_can_be_pulled(server: WebProcess, hg: HgClient, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    hg.run("clone", "-q", "-U", "-r", "zähler", url(server), str(clone)).ok()
    assert hg.run("-R", str(clone), "log", "-r", "tip", "-T", "{desc}").ok().out == "with names outside ASCII"


@pytest.mark.parametrize("size_bytes", [10, 40_000_000])
def test_a_push_over_https_is_told_where_to_go(
    server: WebProcess, hg: HgClient, tmp_path: Path, size_bytes: int
) -> None:
    work = WorkingCopy.clone(hg, url(server), tmp_path / "work")
    (work.directory / "new.bin").write_bytes(os.urandom(size_bytes))
    work.run("commit", "-q", "-A", "-m", "more").ok()
    outcome = work.run("push", "--config", "ui.large-file-limit=0")
    assert outcome.status == 255
    expected = "abort: HTTP Error 403: this mirror is read-only: push to ssh://localhost:2222/team/app"
    assert expected in outcome.text


def test_a_bookmark_pushed_over_https_is_refused_too(
    server: WebProcess, hg: HgClient, tmp_path: Path
) -> None:
    work = WorkingCopy.clone(hg, url(server), tmp_path / "work")
    work.run("bookmark", "-r", "0", "mine").ok()
    outcome = work.run("push", "-B", "mine")
    assert outcome.status != 0
    assert "this mirror is read-only" in outcome.text


def test_unknown_repositories_and_changesets_are_one_line(server: WebProcess, hg: HgClient) -> None:
    unknown = hg.run("identify", f"{server.base_url}/nope")
    assert "abort: HTTP Error 404: no such repository" in unknown.text
    changeset = hg.run("identify", "-r", "f" * 39 + "e", url(server))
    assert "unknown revision" in changeset.text
    assert "Traceback" not in unknown.text + changeset.text


def test_many_clients_at_once_get_the_same_clone(
    server: WebProcess, hg: HgClient, tmp_path: Path, exposures: Exposures
) -> None:
    targets = [tmp_path / f"clone{number}" for number in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda target: hg.run("clone", "-q", "-U", url(server), str(target)).ok(), targets))
    assert {shown(hg, target) for target in targets} == {shown(hg, exposures.copy(LAST))}


def test_a_worker_that_dies_is_replaced(server: WebProcess) -> None:
    before = server.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    wait_until(
        lambda: len(server.worker_pids()) == len(before) and before[0] not in server.worker_pids(),
        what="a new worker",
    )
    assert server.get("/team/app?cmd=heads")[0] == 200


def test_each_request_leaves_one_line(server: WebProcess) -> None:
    server.get("/team/app/json-log?mark=12345", Accept="text/html")
    server.get("/team/app/rev/nope")
    lines = wait_until(  # the answer may be here before the line that is written after it
        lambda: [line for line in server.lines() if line.get("path") == "team/app/rev/nope"],
        what="the request's line",
    )
    assert [line["status"] for line in lines] == ["404"]
    assert {"method", "client", "duration_ms", "sent_bytes", "seq", "repository", "outcome"} <= lines[
        0
    ].keys()


def test_headers_of_thousands_of_heads_are_taken(server: WebProcess) -> None:
    nodes = "+".join(f"{number:040x}" for number in range(5000))
    argument = f"nodes={nodes}"
    pieces = {
        f"X-HgArg-{n + 1}": argument[n * 1000 : (n + 1) * 1000] for n in range(len(argument) // 1000 + 1)
    }
    status, body = server.get("/team/app?cmd=known", **pieces)
    assert (status, body) == (200, b"1" + b"0" * 4999)


def test_forwarding_headers_of_strangers_mean_nothing(server: WebProcess) -> None:
    server.get(
        "/team/app?cmd=heads&from=stranger", **{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
    )
    assert [line["client"] for line in server.lines() if line.get("command") == "heads"][-1] == "127.0.0.1"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /team/app?cmd=heads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET /team/app?cmd=heads HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nxxxxx",
        b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01 garbage\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(server: WebProcess, request_bytes: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(request_bytes)
        connection.settimeout(20)
        status = connection.recv(4096).split(b" ")[1:2]
    assert status in [[b"400"], [b"414"], [b"431"], [b"501"], [b"404"]]
    assert server.get("/-/livez")[0] == 200


def test_clients_that_send_a_byte_at_a_time_hold_no_thread_for_ever(server: WebProcess) -> None:
    post = (
        b"POST /team/app?cmd=batch HTTP/1.1\r\nHost: x\r\nX-HgArgs-Post: 9000\r\nContent-Length: 9000\r\n\r\n"
    )
    with ExitStack() as stack:
        bodies = [stack.enter_context(server.connect())]
        for _ in range(MORE_THAN_THREADS):
            bodies[-1].sendall(post)
            bodies.append(stack.enter_context(server.connect()))
        head = bodies.pop()
        head.sendall(b"GET /team/app HTTP/1.1\r\n")
        handshake = stack.enter_context(socket.create_connection(("localhost", server.port)))
        handshake.sendall(b"\x16\x03")
        stop = stack.enter_context(dripping([*bodies, head]))
        answers = [connection.recv(4096) for connection in bodies]
        ends = [connection.recv(4096) for connection in (head, handshake)]
        stop.set()
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 408"] * MORE_THAN_THREADS
    assert all(end[:12] in {b"", b"HTTP/1.1 400", b"HTTP/1.1 408"} for end in ends)
    assert server.get("/team/app?cmd=heads")[0] == 200


@contextmanager
def dripping(connections: list[ssl.SSLSocket]) -> Iterator[threading.Event]:
    """Send a byte over each connection now and then until the event is set."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.2):
            for connection in connections:
                with suppress(OSError):
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def test_a_stop_lets_what_is_being_sent_come_through(
    host: MirrorHost, exposures: Exposures, tmp_path: Path
) -> None:
    process = WebProcess(tmp_path / "web", host.site(), workers=1)
    with process.connect() as connection:
        connection.sendall(
            b"POST /team/app?cmd=known HTTP/1.1\r\nHost: x\r\nContent-Length: 46\r\nX-HgArgs-Post: 46\r\n\r\n"
        )
        wait_until(lambda: process.get("/-/livez")[0] == 200, what="the request is being read")
        process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.get("/-/livez")[0] == 0, what="no new requests are taken")
        connection.sendall(b"nodes=" + b"0" * 40)
        connection.settimeout(20)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert process.process.wait(timeout=30) == 0


# ---- the plain port


def redirected(port: int, request: bytes) -> str:
    """Return where a request on the plain port is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head = answer.decode().split("\r\n")
    assert head[0] == "HTTP/1.1 301 Moved Permanently"
    assert answer.endswith(b"\r\n\r\n")
    [location] = [line.partition(": ")[2] for line in head if line.startswith("Location: ")]
    return location


@pytest.fixture(scope="module")
def plain_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_redirect(tmp_path_factory.mktemp("redirect"), "https://hg.example:8443") as port:
        yield port


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "BREW"])
def test_the_plain_port_sends_every_method_to_https(plain_port: int, method: str) -> None:
    request = f"{method} /a/b?x=1&y HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 3\r\n\r\nabc".encode()
    assert redirected(plain_port, request) == "https://hg.example:8443/a/b?x=1&y"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", "/"),
        ("/a%20b/%C3%A4?q=%0D%0A&z=%", "/a%20b/%C3%A4?q=%0D%0A&z=%"),
        ("//evil.example/", "//evil.example/"),
        ("/../../etc/passwd", "/../../etc/passwd"),
        ("/" + "x" * 100_000, "/" + "x" * 100_000),
        ("http://evil.example/a?b", "/a?b"),
        ("*", "/"),
        ("evil.example:443", "/evil.example:443"),
    ],
)
def test_path_and_query_are_kept_verbatim(plain_port: int, target: str, expected: str) -> None:
    location = redirected(plain_port, f"GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
    assert location == f"https://hg.example:8443{expected}"


@pytest.mark.parametrize(
    "request_bytes", [b"\r\n\r\n", b"\x00\xff garbage\r\n\r\n", b"GET\r\n\r\n", b"x" * 300_000]
)
def test_garbage_on_the_plain_port_is_sent_to_the_start_page(plain_port: int, request_bytes: bytes) -> None:
    assert redirected(plain_port, request_bytes).startswith("https://hg.example:8443/")
