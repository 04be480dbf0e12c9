"""The network of namespaces that fleets of several hosts are tested on: its faults are what they say."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgfleet.adapters.processes import Program
from tests.support.clients import ROOT
from tests.support.network import Host, Network
from tests.support.waiting import wait_until

PORT = 7000
ECHO = """
import socket, threading
def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
listener = socket.create_server(("", 7000))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
# Says what arrives by UDP, and how often somebody said something.
COUNTER = """
import socket
inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
inbox.bind(("", 7001))
count = 0
while True:
    data, sender = inbox.recvfrom(100)
    if data == b"how many?":
        inbox.sendto(str(count).encode(), sender)
    else:
        count += 1
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network(("alpha", "beta", "gamma"), tmp_path / "network") as made:
        for host in made.hosts.values():
            host.start(Program((sys.executable, "-c", ECHO)))
        for host in made.hosts.values():
            wait_until(lambda: answers(made.host("alpha"), host), what=f"{host.name} answers")  # noqa: B023
        yield made


def answers(here: Host, there: Host, *, timeout_seconds: float = 1.0) -> bool:
    try:
        with here.connect(there.address, PORT, timeout_seconds=timeout_seconds) as connection:
            return echo(connection) > 0
    except OSError:
        return False


def echo(connection: socket.socket) -> float:
    """Send and hear once; return the seconds it took."""
    started = time.monotonic()
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return time.monotonic() - started


def test_hosts_reach_each_other_by_address_and_by_name_and_nothing_else(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    assert answers(alpha, beta)
    with alpha.connect("beta.hg.test", PORT) as connection:
        assert connection.getpeername() == (beta.address, PORT)
        assert connection.getsockname()[0] == alpha.address
    with pytest.raises(ConnectionError, match="unreachable"):
        alpha.connect("192.0.2.1", 80)


def test_a_cut_host_is_silent_both_ways_and_its_connections_go_on_once_healed(network: Network) -> None:
    alpha, beta, gamma = (network.host(name) for name in ("alpha", "beta", "gamma"))
    with alpha.connect(beta.address, PORT) as connection:
        echo(connection)
        network.cut(beta)
        assert not answers(alpha, beta)
        assert not answers(beta, gamma)
        assert answers(alpha, gamma)
        connection.sendall(b"x")
        network.heal()
        connection.settimeout(20)
        assert connection.recv(1) == b"x", "sent while it was cut"
    assert answers(alpha, beta)


def test_two_hosts_can_be_cut_from_each_other_alone(network: Network) -> None:
    alpha, beta, gamma = (network.host(name) for name in ("alpha", "beta", "gamma"))
    network.cut(beta, from_=alpha)
    assert not answers(alpha, beta)
    assert answers(gamma, beta)
    network.heal(beta)
    assert answers(alpha, beta)


@pytest.mark.parametrize("hears", [False, True])
def test_a_host_that_is_cut_one_way_is_heard_or_hears(network: Network, hears: bool) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    beta.start(Program((sys.executable, "-c", COUNTER)))
    wait_until(lambda: told(beta, beta) == 0, what="the counter answers")
    network.cut(beta, hears=hears, sends=not hears)
    assert not answers(alpha, beta)
    tell(alpha, beta)
    assert told(alpha, beta) is None
    expected = 1 if hears else 0
    wait_until(lambda: told(beta, beta) == expected, what="what arrives is counted, nothing else")
    network.heal()
    assert answers(alpha, beta)


def tell(here: Host, there: Host, times: int = 1) -> None:
    code = (
        "import socket, sys; s = socket.socket(2, 2)\n"
        "for _ in range(int(sys.argv[2])): s.sendto(b'.', (sys.argv[1], 7001))"
    )
    here.run(sys.executable, "-c", code, there.address, str(times))


def told(here: Host, there: Host) -> int | None:
    code = (
        "import socket, sys; s = socket.socket(2, 2); s.settimeout(0.5)\n"
        "s.sendto(b'how many?', (sys.argv[1], 7001))\n"
        "try: print(s.recv(100).decode())\n"
        "except OSError: print(-1)"
    )
    answer = int(here.run(sys.executable, "-c", code, there.address).out)
    return None if answer < 0 else answer


def test_a_slow_link_delays_both_ways_also_what_is_connected_already(network: Network) -> None:
    alpha, beta, gamma = (network.host(name) for name in ("alpha", "beta", "gamma"))
    with alpha.connect(beta.address, PORT) as connection, alpha.connect(gamma.address, PORT) as other:
        assert echo(connection) < 0.1
        network.slow(beta, delay_seconds=0.15)
        assert echo(connection) >= 0.3
        assert echo(other) < 0.15
        network.heal()
        wait_until(lambda: echo(connection) < 0.15, what="the link is fast again")


def test_a_lossy_link_loses_about_as_many_packets_as_asked_for(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    beta.start(Program((sys.executable, "-c", COUNTER)))
    wait_until(lambda: told(beta, beta) == 0, what="the counter answers")
    network.lose(beta, 30)
    tell(alpha, beta, times=400)
    assert 200 < (told(beta, beta) or 0) < 360, "70 % of 400"


def test_a_killed_host_takes_everything_that_ran_on_it_along_and_can_be_used_again(network: Network) -> None:
    alpha, beta = network.host("alpha"), network.host("beta")
    assert beta.pids()
    beta.kill_all()
    assert not beta.pids()
    assert not answers(alpha, beta)
    beta.start(Program((sys.executable, "-c", ECHO)))
    wait_until(lambda: answers(alpha, beta), what="beta answers again")


def test_nothing_is_left_when_the_process_of_a_test_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from hgfleet.adapters.processes import Program\n"
        "from tests.support.network import Network\n"
        "with Network(('alpha',), Path(sys.argv[1])) as network:\n"
        "    host = network.host('alpha')\n"
        "    child = host.start(Program(('sleep', '1000')))\n"
        "    print(network._router.pid, host.pid, child.pid, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 3
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(is_there, pids)), what="the namespaces and what runs in them are gone")


def is_there(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False
