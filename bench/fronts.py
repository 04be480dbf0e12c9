"""Starts more SSH fronts of a running fleet, each with another session server behind it.

Every front is hgfleet's own process with the fleet's configuration; only the port and the directory of
sockets differ. So plain `hg serve --stdio` is measured behind the very same front, look-up of accounts and
paths included.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import tomlkit

from bench.free_ports import free_port, is_listening
from tests.support.clients import ROOT
from tests.support.fleet import Fleet
from tests.support.openssh import Sshd
from tests.support.waiting import wait_until

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Front:
    """One more SSH front of a fleet."""

    fleet: Fleet
    port: int

    def url(self, path: str) -> str:
        """Return the URL that clients push to."""
        ssh = self.fleet.endpoints["ssh"]
        return f"ssh://{self.fleet.endpoints['account']}@{ssh['host']}:{self.port}/{path}"


@dataclass(frozen=True, slots=True)
class Tap:
    """What times the sessions that pass through it."""

    name: str
    socket: Path
    journal: Path


class Fronts:
    """Starts fronts and what stands behind them; ends all of them at the end of the `with`."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self._directory = directory
        self._stack = ExitStack()
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Fronts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def own_sessions(self) -> Path:
        """The socket of the fleet's own session server."""
        return (self.fleet.directory / "run").resolve() / "sessions.sock"

    def plain_sessions(self, repositories: Path) -> Path:
        """Start a session server that runs plain `hg serve --stdio`; return its socket."""
        path = self._directory / "plain.sock"
        self._start("plain", "bench.plain_sessions", str(path), str(repositories))
        wait_until(path.exists, what="plain sessions listen", explain=lambda: self._log("plain"))
        return path

    def tap(self, name: str, upstream: Path) -> Tap:
        """Put a tap before a session server."""
        tap = Tap(name, self._directory / f"{name}.sock", self._directory / f"{name}.journal")
        tap.journal.touch()
        self._start(name, "bench.tap", str(tap.socket), str(upstream), str(tap.journal))
        wait_until(tap.socket.exists, what="the tap listens", explain=lambda: self._log(name))
        return tap

    def front(self, name: str, sessions: Path) -> Front:
        """Start an SSH front that hands its sessions to that socket."""
        port = free_port()
        config = self._write_config(name, sessions, port)
        role = ("ssh", "--config", str(config), "--name", f"ssh-{name}")
        self._start(f"front-{name}", "hgfleet.cli.process", *role)
        what = f"the front {name} listens"
        wait_until(lambda: is_listening(port), what=what, explain=lambda: self._log(f"front-{name}"))
        return Front(self.fleet, port)

    def openssh(self, name: str, sessions: Path) -> Front:
        """Start an sshd, and the reception behind it that hands its sessions to that socket."""
        port = free_port()
        config = self._write_config(name, sessions, port, kind="openssh")
        self._start(f"front-{name}", "hgfleet.cli.process", "ssh", "--config", str(config), "--name", name)
        sshd = Sshd(self._directory / f"sshd-{name}")
        sshd.accounts.write([self.fleet.endpoints["account"]])
        sshd.write_config(self.fleet.cli("render", "sshd", "--config", str(config)).ok().out)
        sshd.start()
        self._stack.callback(sshd.stop)
        is_ready = partial(sshd.is_listening, "127.0.0.1", port)
        wait_until(is_ready, what="sshd listens", explain=sshd.explain)
        return Front(self.fleet, port)

    def _write_config(self, name: str, sessions: Path, port: int, kind: str = "embedded") -> Path:
        run = self._directory / f"run-{name}"
        run.mkdir()
        (run / "sessions.sock").symlink_to(sessions)
        (run / "log-agent.sock").symlink_to((self.fleet.directory / "run" / "log-agent.sock").resolve())
        effective = self.fleet.directory / "run" / "effective.toml"
        tables = tomllib.loads(effective.read_text())
        tables.setdefault("site", {})["run_directory"] = str(run)
        tables["ssh"] = tables.get("ssh", {}) | {"port": port, "kind": kind}
        config = effective.with_name(f"bench-{name}.toml")  # relative paths go on from the same directory
        config.write_text(tomlkit.dumps(tables))
        return config

    def _start(self, name: str, module: str, *arguments: str) -> None:
        log = self._stack.enter_context((self._directory / f"{name}.log").open("wb"))
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=self.fleet.environment(),
        )
        self._stack.callback(_stop, child)

    def _log(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text(errors="replace")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
