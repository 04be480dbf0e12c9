"""The SSH side of the rendered configuration in a real HAProxy, before hosts that a test makes active."""

from __future__ import annotations

import http.server
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.free_ports import free_port
from hgfleet.adapters.haproxy_config import Mirror
from hgfleet.adapters.haproxy_ssh import SshHost, SshOptions
from tests.support.load_balancer import LoadBalancer, load_balancer, make_certificate

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Host:
    """One that may be the primary: an admin listener, and an SSH port that greets and echoes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_active = False
        self.checks = 0
        self.front = _Front(("127.0.0.1", 0), _Session)
        self.front.name = name
        self.admin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _admin(self))
        for server in (self.front, self.admin):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> SshHost:
        return SshHost(self.name, "127.0.0.1", self.front.server_address[1], self.admin.server_address[1])

    def close(self) -> None:
        for server in (self.front, self.admin):
            server.shutdown()
            server.server_close()


class _Front(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    name = ""


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Say who is asked and by whom; then echo."""
        head = self.rfile.read(16)
        if not head.startswith(SIGNATURE):
            return
        kind, _, length = struct.unpack("!BBH", head[12:])
        addresses = self.rfile.read(length)
        assert kind == 0x21, kind
        assert isinstance(self.server, _Front)
        client = socket.inet_ntoa(addresses[:4])
        self.wfile.write(f"SSH-2.0-{self.server.name} {client}\n".encode())
        for line in self.rfile:
            self.wfile.write(line)


def _admin(host: Host) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            assert self.path == "/-/readyz"
            host.checks += 1
            self.send_response(200 if host.is_active else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    return Handler


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    both = (Host("alpha"), Host("beta"))
    both[0].is_active = True
    yield both
    for host in both:
        host.close()


@pytest.fixture
def balancer(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[LoadBalancer]:
    ssh = SshOptions(
        "127.0.0.1",
        free_port(),
        tuple(host.address for host in hosts),
        check_interval_seconds=1,
        check_timeout_seconds=5,
        falls=1,
    )
    certificate = make_certificate(tmp_path)
    with load_balancer((Mirror("m1", "127.0.0.1", free_port()),), certificate, tmp_path, ssh=ssh) as running:
        yield running


def connect(balancer: LoadBalancer, source: str = "127.0.0.1") -> socket.socket:
    assert balancer.options.ssh is not None
    port = balancer.options.ssh.port
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def greeting(balancer: LoadBalancer, source: str = "127.0.0.1") -> str:
    with closing(connect(balancer, source)) as client, client.makefile("r") as lines:
        return lines.readline().strip()


def test_a_connection_goes_to_the_active_primary_and_tells_it_the_clients_address(
    balancer: LoadBalancer,
) -> None:
    assert greeting(balancer, "127.0.0.5") == "SSH-2.0-alpha 127.0.0.5"


def test_connections_follow_the_role_there_and_back(balancer: LoadBalancer, hosts: tuple[Host, Host]) -> None:
    alpha, beta = hosts
    alpha.is_active, beta.is_active = False, True
    balancer.wait(lambda: greeting(balancer).startswith("SSH-2.0-beta"), "the other host is asked")
    alpha.is_active, beta.is_active = True, False
    balancer.wait(lambda: greeting(balancer).startswith("SSH-2.0-alpha"), "the first one is asked again")


def test_a_session_goes_on_while_its_host_hands_over(
    balancer: LoadBalancer, hosts: tuple[Host, Host]
) -> None:
    alpha, beta = hosts
    with closing(connect(balancer)) as client, client.makefile("rw") as lines:
        assert lines.readline().startswith("SSH-2.0-alpha")
        alpha.is_active, beta.is_active = False, True
        balancer.wait(lambda: greeting(balancer).startswith("SSH-2.0-beta"), "new ones go to the other host")
        lines.write("the rest of a push\n")
        lines.flush()
        assert lines.readline() == "the rest of a push\n"


def test_with_no_active_primary_a_client_is_told_at_once(
    balancer: LoadBalancer, hosts: tuple[Host, Host]
) -> None:
    for host in hosts:
        host.is_active = False
    balancer.wait(lambda: greeting(balancer) == "", "the connection is closed")


def test_a_dead_primary_costs_a_client_no_more_than_one_try(
    balancer: LoadBalancer, hosts: tuple[Host, Host]
) -> None:
    alpha, beta = hosts
    beta.is_active = True
    alpha.close()
    balancer.wait(lambda: greeting(balancer).startswith("SSH-2.0-beta"), "the other host is asked")
