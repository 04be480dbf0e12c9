"""A real HAProxy with our configuration, in front of mirrors whose answers a test decides.

Promises: what a test started is ended with it; a configuration that HAProxy only warns about is a failure.
Does not: stand for a mirror where its behaviour matters (tests with real web workers do that).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bench.free_ports import free_port
from hgfleet.adapters.haproxy_config import HaproxyOptions, Mirror, Timing, render_haproxy
from hgfleet.adapters.processes import Child, Program, run, start
from hgfleet.adapters.tls import CertificateFiles, ensure_certificates
from hgfleet.cli.services import find_haproxy
from tests.support.waiting import wait_until

_LOADED = "Loading success"
FAST = Timing(check_interval_seconds=1, check_timeout_seconds=5, falls=1)
OPTIONS = HaproxyOptions("127.0.0.1", 0, 0, "localhost", Path("both.pem"), (), Path("ca.pem"), timing=FAST)
Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for localhost: as one file for servers, and its CA for clients."""

    both: Path
    ca: Path


def make_certificate(directory: Path) -> Certificate:
    """Make a CA and a certificate below a directory."""
    files = CertificateFiles(*(directory / f"{part}.pem" for part in ("ca", "ca-key", "server", "key")))
    ensure_certificates(files, ["localhost"])
    both = directory / "both.pem"
    both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    return Certificate(both, files.ca)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got."""

    status: int
    text: str
    headers: http.client.HTTPMessage


@dataclass
class Asked:
    """One request that a mirror got."""

    method: str
    path: str
    headers: Headers
    body: bytes


@dataclass
class Backend:
    """A mirror's web side as HAProxy sees it: readiness, liveness and one status for everything else."""

    name: str
    certificate: Certificate
    is_ready: bool = True
    is_alive: bool = True
    status: int = 200
    shown: Headers = field(default_factory=dict)  # on every answer
    seen: list[Asked] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)  # answers wait for it
    busy: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.go_on.set()
        self.server = _Server(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate.both)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def mirror(self) -> Mirror:
        """Where HAProxy finds it."""
        return Mirror(self.name, "127.0.0.1", int(self.server.server_address[1]))

    def show(self, repository: str, seq: int) -> None:
        """Answer as a mirror that exposes the repository at a seq, but not to whom that would take back."""
        self.shown = {"X-HgFleet-Repository": repository, "X-HgFleet-Seq": str(seq)}

    def close(self) -> None:
        """Stop answering."""
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def decide(self, asked: Asked) -> int:
        """Return the status of an answer."""
        health = {"/-/readyz": self.is_ready, "/-/livez": self.is_alive}
        if asked.path in health:
            return 200 if health[asked.path] else 503
        self.seen.append(asked)
        with self._lock:
            self.busy += 1
        self.go_on.wait(20)
        with self._lock:
            self.busy -= 1
        return self.status


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go when they like."""


def _handler(backend: Backend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(backend.decide(Asked(self.command, self.path, headers, body)))
            for name, value in {**backend.shown, "Content-Length": str(len(backend.name))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else backend.name.encode())

        do_POST = do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    return Handler


class LoadBalancer:
    """A running HAProxy."""

    def __init__(self, options: HaproxyOptions, directory: Path, ca_file: Path) -> None:
        self.options = options
        self.ca_file = ca_file
        self.config = check(options, directory)
        self._output = directory / "haproxy.log"
        self._child: Child | None = None

    def start(self, *arguments: str) -> None:
        """Start it and wait until it listens."""
        argv = (find_haproxy("haproxy"), *(arguments or ("-db",)), "-f", str(self.config))
        with self._output.open("ab") as output:
            self._child = start(Program(argv, stdout=output, stderr=output))
        self.wait(lambda: is_listening(self.options.https_port), "HAProxy listens")
        if "-W" in arguments:  # the ports are open before the master can be spoken to
            self.wait(lambda: _LOADED in self._output.read_text(), "HAProxy's master has its workers")

    def reload(self) -> None:
        """Tell the master process to start over with the configuration as it is now."""
        loaded = self._output.read_text().count(_LOADED)

        def has_started_over() -> bool:
            os.kill(self.pid, signal.SIGUSR2)  # one that comes while the master starts itself is lost
            return self._output.read_text().count(_LOADED) > loaded

        self.wait(has_started_over, "HAProxy has started over")

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._child is not None
        return self._child.pid

    def close(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.stop(5)
            self._child.close()

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: Headers | None = None,
        *,
        body: bytes | None = None,
        source: str = "127.0.0.1",
    ) -> Reply:
        """Ask the fleet, from a client's address."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        port = self.options.https_port
        connection = http.client.HTTPSConnection(
            "localhost", port, context=context, timeout=30, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            connection.request(method, target, headers=headers or {}, body=body)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read().decode("utf-8", "replace"), answer.msg)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait on a state; print what HAProxy said when it does not come."""
        wait_until(condition, what=what, deadline_seconds=20, explain=self._output.read_text)


@contextlib.contextmanager
def load_balancer(
    mirrors: tuple[Mirror, ...], certificate: Certificate, directory: Path, **changes: object
) -> Iterator[LoadBalancer]:
    """Run HAProxy in front of mirrors; `changes` are options by name."""
    options = replace(
        OPTIONS,
        http_port=free_port(),
        https_port=free_port(),
        certificate_file=certificate.both,
        mirrors=mirrors,
        mirrors_ca_file=certificate.ca,
    )
    running = LoadBalancer(replace(options, **changes), directory, certificate.ca)  # type: ignore[arg-type]
    running.start()
    try:
        yield running
    finally:
        running.close()


def check(options: HaproxyOptions, directory: Path) -> Path:
    """Write the configuration and let HAProxy check it; return its path."""
    config = directory / f"haproxy-{options.https_port}.cfg"
    config.write_text(render_haproxy(options))
    done = run(Program((find_haproxy("haproxy"), "-c", "-f", str(config))), 30)
    assert done.status == 0, done.stderr.decode()
    assert b"WARNING" not in done.stderr, done.stderr.decode()
    return config


def seen_header(repository: str, seq: int) -> str:
    """Return what HAProxy tells a mirror of what was seen."""
    return f"{zlib.crc32(repository.encode())}:{seq}"


def is_listening(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
