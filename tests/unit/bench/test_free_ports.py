"""Ports for programs that start a moment later: nobody else is given them meanwhile."""

from __future__ import annotations

import socket
import subprocess
import sys

from bench.free_ports import free_port
from tests.support.clients import ROOT

SEVERAL = 250  # more than one block
_PRINT = f"""
from bench.free_ports import free_port
print(*(free_port() for _ in range({SEVERAL})), flush=True)
input()
"""


def test_processes_that_run_at_once_are_given_different_ports() -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", _PRINT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    given = [free_port() for _ in range(SEVERAL)]
    for other in others:
        assert other.stdout is not None
        given += map(int, other.stdout.readline().split())
    for other in others:
        other.communicate("\n")
    assert len(given) == len(set(given)) == 3 * SEVERAL


def test_a_port_that_something_listens_on_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", free_port() + 1)) as taken:
        assert free_port() != taken.getsockname()[1]
