"""The rendered configuration in a real HAProxy, in front of mirrors whose answers a test decides."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hgfleet.adapters.haproxy_config import STALE_HEADER, HaproxyOptions, Mirror, Timing, render_haproxy
from hgfleet.adapters.processes import PIPE, Program, run, start
from hgfleet.errors import ConfigError
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FETCHED = ROOT / ".tools" / "bin" / "haproxy"
HAPROXY = shutil.which("haproxy") or str(FETCHED)
FAST = Timing(check_interval_seconds=0.05, check_timeout_seconds=0.5, falls=1)


class Backend:
    """A mirror's web side as HAProxy sees it: readiness, liveness and one status for everything else."""

    def __init__(self, name: str, certificate: Path) -> None:
        self.name = name
        self.is_ready = self.is_alive = True
        self.status = 200
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                backend.answer(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", "0")))
        if request.path == "/-/readyz":
            status = 200 if self.is_ready else 503
        elif request.path == "/-/livez":
            status = 200 if self.is_alive else 503
        else:
            status = self.status
            self.seen.append(
                (request.command, request.path, {k.lower(): v for k, v in request.headers.items()})
            )
        body = self.name.encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@dataclass
class Proxy:
    """A running HAProxy with its mirrors."""

    mirrors: tuple[Backend, ...]
    options: HaproxyOptions

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        source: str = "127.0.0.1",
    ) -> tuple[int, str, http.client.HTTPMessage]:
        context = ssl.create_default_context(cafile=str(self.options.mirrors_ca_file))
        connection = http.client.HTTPSConnection(
            "localhost", self.options.https_port, context=context, timeout=10, source_address=(source, 0)
        )
        connection.request(method, target, headers=headers or {}, body=b"x" if method == "POST" else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.msg

    def seen(self, method: str, path: str) -> list[tuple[str, dict[str, str]]]:
        return [(m.name, h) for m in self.mirrors for (verb, p, h) in m.seen if (verb, p) == (method, path)]

    def owner_of(self, path: str) -> tuple[Backend, Backend]:
        """The mirror that gets the requests for a repository, and the other one."""
        name = self.ask(path)[1]
        one, two = self.mirrors
        return (one, two) if one.name == name else (two, one)

    def wait_for(self, condition: object, what: str) -> None:
        wait_until(condition, what=what, deadline_seconds=15)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("a directory") / "both.pem"
    encoding = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    path.write_bytes(
        built.public_bytes(encoding) + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


@pytest.fixture
def proxy(certificate: Path, tmp_path: Path) -> Iterator[Proxy]:
    mirrors = (Backend("m1", certificate), Backend("m2", certificate))
    options = HaproxyOptions(
        bind_address="127.0.0.1",
        http_port=_free_port(),
        https_port=_free_port(),
        public_name="localhost",
        certificate_file=certificate,
        mirrors=tuple(Mirror(m.name, "127.0.0.1", m.port) for m in mirrors),
        mirrors_ca_file=certificate,
        mirrors_name="localhost",
        control_socket=tmp_path / "haproxy.sock",
        timing=FAST,
    )
    config = _checked(options, tmp_path)
    child = start(Program((HAPROXY, "-db", "-f", str(config)), stdout=PIPE))
    running = Proxy(mirrors, options)
    running.wait_for(lambda: _is_listening(options.https_port), "HAProxy listens")
    yield running
    child.kill()
    child.close()
    for mirror in mirrors:
        mirror.server.shutdown()
        mirror.server.server_close()


def test_the_plain_port_redirects_everything_and_keeps_path_and_query(proxy: Proxy) -> None:
    for method, target in (("GET", "/team/app?cmd=capabilities&x=%2F"), ("POST", "/"), ("GET", "/-/livez")):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.options.http_port, timeout=10)
        connection.request(method, target, headers={"Host": "evil.example"})
        answer = connection.getresponse()
        assert answer.status == 301
        assert answer.headers["Location"] == f"https://localhost:{proxy.options.https_port}{target}"
        connection.close()


def test_a_client_stays_on_one_mirror_whatever_page_of_a_repository_it_asks_for(proxy: Proxy) -> None:
    owners = set()
    for number in range(12):
        repository = f"/team/app{number}"
        pages = ("", "/rev/abc", "/json-log/tip", "/file/tip/a/log/b", "/json-pushes?version=2", "?cmd=heads")
        names = {proxy.ask(repository + page)[1] for page in pages}
        assert len(names) == 1, repository
        owners |= names
    assert owners == {"m1", "m2"}, "the repositories are spread over the mirrors"


def test_a_repository_that_everybody_clones_is_spread_over_the_mirrors_and_each_client_stays(
    proxy: Proxy,
) -> None:
    mirrors_by_client = {
        f"127.0.0.{n}": {proxy.ask("/hot", source=f"127.0.0.{n}")[1] for _ in range(3)} for n in range(2, 12)
    }
    assert all(len(names) == 1 for names in mirrors_by_client.values())
    assert {name for names in mirrors_by_client.values() for name in names} == {"m1", "m2"}


def test_a_502_is_tried_once_on_the_other_mirror_and_a_503_never(proxy: Proxy) -> None:
    owner, other = proxy.owner_of("/parked")
    owner.status = 502
    assert proxy.ask("/parked")[:2] == (200, other.name)
    owner.status = 503
    assert proxy.ask("/parked")[:2] == (503, owner.name)
    owner.status = other.status = 502
    before = len(proxy.seen("GET", "/parked"))
    assert proxy.ask("/parked")[0] == 502
    assert len(proxy.seen("GET", "/parked")) - before == 2, "one retry, not more"


def test_a_request_that_may_not_be_repeated_is_not(proxy: Proxy) -> None:
    owner, _ = proxy.owner_of("/app")
    owner.status = 502
    assert proxy.ask("/app", "POST")[:2] == (502, owner.name)
    assert len(proxy.seen("POST", "/app")) == 1


def test_a_mirror_that_is_not_ready_gets_nothing_until_it_is_ready_again(proxy: Proxy) -> None:
    owner, other = proxy.owner_of("/app")
    owner.is_ready = False
    proxy.wait_for(lambda: proxy.ask("/app")[1] == other.name, "the other mirror takes over")
    assert {proxy.ask(f"/app{n}")[1] for n in range(8)} == {other.name}
    owner.is_ready = True
    proxy.wait_for(lambda: proxy.ask("/app")[1] == owner.name, "the mirror takes its repositories back")


def test_with_no_ready_mirror_those_alive_answer_marked_stale(proxy: Proxy) -> None:
    assert STALE_HEADER not in proxy.ask("/app")[2]
    for mirror in proxy.mirrors:
        mirror.is_ready = False
    proxy.wait_for(lambda: STALE_HEADER in proxy.ask("/app")[2], "the last-resort group answers")
    assert proxy.ask("/app")[0] == 200
    proxy.mirrors[0].is_alive = False
    proxy.wait_for(lambda: {proxy.ask(f"/{n}")[1] for n in range(8)} == {"m2"}, "only the live one answers")
    proxy.mirrors[1].is_ready = True
    proxy.wait_for(lambda: STALE_HEADER not in proxy.ask("/app")[2], "a ready mirror takes over again")


def test_what_a_client_says_about_its_origin_is_replaced(proxy: Proxy) -> None:
    lies = {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=10.0.0.1",
        "X_Forwarded_For": "10.0.0.2",
        "SCRIPT_NAME": "/x",
    }
    _, _, headers = proxy.ask("/app", headers=lies)
    [(_, seen)] = proxy.seen("GET", "/app")
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert not {"forwarded", "x_forwarded_for", "script_name"} & seen.keys()
    assert headers["Strict-Transport-Security"] == "max-age=31536000"


def test_a_request_with_thousands_of_heads_in_its_headers_passes(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client, "_MAXHEADERS", 1000)  # the limit of the test's own backends
    many = {f"X-HgArg-{n}": "a" * 1000 for n in range(1, 430)}
    assert proxy.ask("/app?cmd=getbundle", headers=many)[0] == 200
    assert len(proxy.seen("GET", "/app?cmd=getbundle")[0][1]) > 429


def test_a_mirror_whose_certificate_is_not_trusted_gets_nothing(
    certificate: Path, tmp_path: Path, proxy: Proxy
) -> None:
    options = replace(proxy.options, https_port=_free_port(), http_port=_free_port(), mirrors_name="other")
    options = replace(options, control_socket=None)
    child = start(Program((HAPROXY, "-db", "-f", str(_checked(options, tmp_path))), stdout=PIPE))
    strict = Proxy(proxy.mirrors, options)
    strict.wait_for(lambda: _is_listening(options.https_port), "HAProxy listens")
    assert strict.ask("/app")[0] == 503
    assert not strict.seen("GET", "/app")
    child.kill()
    child.close()


def test_a_value_that_could_break_out_of_its_line_is_refused(certificate: Path, proxy: Proxy) -> None:
    bad = (
        {"public_name": "a b"},
        {"public_name": "a\nb"},
        {"certificate_file": Path("/x'y.pem")},
        {"mirrors": (Mirror("m 1", "127.0.0.1", 1),)},
        {"mirrors": ()},
    )
    for change in bad:
        with pytest.raises(ConfigError):
            render_haproxy(replace(proxy.options, **change))


def test_ipv6_addresses_are_accepted(certificate: Path, tmp_path: Path, proxy: Proxy) -> None:
    mirror = Mirror("m1", "::1", 1443)
    _checked(replace(proxy.options, bind_address="::1", mirrors=(mirror,)), tmp_path)


def _checked(options: HaproxyOptions, directory: Path) -> Path:
    config = directory / f"haproxy-{options.https_port}.cfg"
    config.write_text(render_haproxy(options))
    done = run(Program((HAPROXY, "-c", "-f", str(config))), 30)
    assert done.status == 0, done.stderr.decode()
    assert b"WARNING" not in done.stderr, done.stderr.decode()
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


assert os.access(HAPROXY, os.X_OK), "HAProxy is on PATH or fetched by `make setup`"
