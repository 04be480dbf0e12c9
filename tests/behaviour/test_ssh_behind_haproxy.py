"""SSH through a real HAProxy that sends PROXY headers: its health check, and whose address is seen."""

from __future__ import annotations

import csv
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.free_ports import free_port
from hgfleet.cli.services import find_haproxy
from tests.support.ssh_fronts import BEHIND_PROXY, Running, embedded_front, openssh_behind_proxy
from tests.support.waiting import wait_until

CONFIG = """\
global
    maxconn 100
    stats socket {stats} mode 600 level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen ssh
    bind 127.0.0.1:{port}
    option tcp-check
    tcp-check expect string SSH-2.0-
    server primary 127.0.0.1:{server} {header} check check-send-proxy inter 300ms fall 2 rise 1
"""


@contextmanager
def haproxy(running: Running, header: str) -> Iterator[Path]:
    """Put HAProxy before a front, which is reached through it from here on; yield its stats socket."""
    port, stats = free_port(), running.directory / "stats.sock"
    config = running.directory / "haproxy.cfg"
    config.write_text(CONFIG.format(port=port, server=running.port, header=header, stats=stats))
    process = subprocess.Popen([find_haproxy("haproxy"), "-db", "-f", str(config)])
    try:
        running.port = port
        yield stats
    finally:
        process.terminate()
        process.wait(10)


def check_status(stats: Path) -> str:
    """Return what HAProxy's last health check of the server found."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(stats))
        connection.sendall(b"show stat\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    rows = csv.DictReader(text.removeprefix("# ").splitlines())
    [row] = [row for row in rows if row["svname"] == "primary"]
    return f"{row['status']} {row['check_status']}"


@pytest.mark.parametrize("header", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("kind", ["embedded", "openssh"])
def test_haproxy_finds_the_server_well_and_passes_the_clients_address(
    tmp_path: Path, kind: str, header: str
) -> None:
    front = embedded_front(tmp_path, BEHIND_PROXY) if kind == "embedded" else openssh_behind_proxy(tmp_path)
    with front as running, haproxy(running, header) as stats:
        wait_until(stats.exists, what="HAProxy runs", explain=running.log)
        wait_until(lambda: check_status(stats) == "UP L7OK", what="a health check", explain=running.log)

        outcome = running.ssh("x", options=["BindAddress=127.0.0.9"])

        assert outcome.status == 3, outcome
        assert running.reception.visits[-1].client_address == "127.0.0.9"
        assert running.ssh("big").status == 7
