"""A real server that tests start: one program in the foreground, its own port, its own log file.

With `prefix` the program runs behind another one that becomes it, such as `ip netns exec NAME`; whether it
answers is then asked from behind the same prefix.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import wait_until

START_SECONDS = 120.0
STOP_SECONDS = 20.0
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"


class ServerProcess:
    """One server, started and stopped any number of times on the same port."""

    def __init__(
        self, arguments: Sequence[str], *, log: Path, address: str, port: int, prefix: Sequence[str] = ()
    ) -> None:
        self._arguments = [*prefix, find(arguments[0]), *arguments[1:]]
        self._prefix = list(prefix)
        self._log = log
        self.address = address
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server and wait until it takes connections; one that runs is left alone."""
        if self._process is not None and self._process.poll() is None:
            return
        self.launch(environment)
        self.wait_until_answering()

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server without waiting for it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def wait_until_answering(self) -> None:
        """Wait until it takes connections."""
        wait_until(
            self._is_answering,
            what=f"{self._arguments[len(self._prefix)]} answers on port {self.port}",
            deadline_seconds=START_SECONDS,
            explain=self.explain,
        )

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server; one that has ended already is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def explain(self) -> str:
        """Return what it printed, for failures."""
        return self._log.read_text(errors="replace")[-4000:]

    def _is_answering(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._arguments}: ended\n{self.explain()}"
        return can_connect(self.address, self.port, self._prefix)


def can_connect(address: str, port: int, prefix: Sequence[str] = ()) -> bool:
    """Tell whether something takes connections there, seen from behind the prefix."""
    if prefix:
        command = [*prefix, sys.executable, "-c", _CONNECT, address, str(port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


def find(program: str) -> str:
    """Return a program's path; a missing one is a failure of `make setup-test`."""
    found = shutil.which(program)
    assert found is not None, f"{program} is missing: run `make setup-test`"
    return found
