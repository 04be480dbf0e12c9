"""Connections from another network namespace for use in this process.

A process there connects and hands the descriptor over. (A thread of ours could enter the namespace, but not
a user namespace, which whoever is not root needs.)

Run as a program (`python -m tests.support.socket_donor`) it is that process.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

from tests.support.clients import ROOT

_FAILED, _GIVEN = b"x", b"+"


class SocketDonor:
    """The process, asked for one connection at a time."""

    def __init__(self, prefix: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        argv = [*prefix, sys.executable, "-m", "tests.support.socket_donor", str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        self._process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),), env=environment)
        theirs.close()
        self._channel = ours
        self._lock = threading.Lock()

    def connect(self, address: str, port: int, *, timeout_seconds: float) -> socket.socket:
        """Return a connected socket; raise ConnectionError or TimeoutError as a direct attempt would."""
        with self._lock:
            self._channel.sendall(f"{address} {port} {timeout_seconds}\n".encode())
            answer, ancillary, _, _ = self._channel.recvmsg(200, socket.CMSG_SPACE(4))
        if answer[:1] != _GIVEN:
            raise ConnectionError(answer[1:].decode() or "the connection's process has ended")
        numbers = array.array("i")
        numbers.frombytes(ancillary[0][2][:4])
        connection = socket.socket(fileno=numbers[0])
        connection.settimeout(timeout_seconds)
        return connection

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait(5)


def _serve(channel: socket.socket) -> None:
    for line in channel.makefile("r"):
        address, port, timeout_seconds = line.split()
        try:
            with socket.create_connection((address, int(port)), float(timeout_seconds)) as connection:
                connection.settimeout(None)
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))
                channel.sendmsg([_GIVEN], [rights])
        except OSError as error:
            channel.sendall(_FAILED + str(error).encode()[:150])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
