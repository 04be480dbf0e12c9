"""A running fleet on one machine: `hgfleet up` in a directory, steered the way an operator would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.clients import CURRENT_HG, HgClient, Outcome, clean_environment, here, run
from tests.support.http_fetch import ANSWER_SECONDS, Reply, fetch
from tests.support.waiting import wait_until

FRONTS = ("embedded_front", "openssh_front")  # what a fixture `one_mirror` can be made to stand for
HGFLEET = Path(sys.executable).with_name("hgfleet")
START_SECONDS = 90.0
STOP_SECONDS = 30.0
LOG_TAIL_LINES = 30
REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Child:
    """One of the fleet's processes, as endpoints.json names it."""

    name: str
    role: str
    host: str
    pid: int

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


class Fleet:
    """One `hgfleet up` and everything a test asks of it."""

    def __init__(
        self, directory: Path, *, mirrors: int = 1, options: tuple[str, ...] = (), config: str = ""
    ) -> None:
        """Prepare a fleet; `config` is the text of its hgfleet.toml, "" the one that `up` writes."""
        self.directory = directory
        if config:
            directory.mkdir(mode=0o700, parents=True)
            (directory / "hgfleet.toml").write_text(config)
        self.mirrors = mirrors
        self.faults = directory.parent / f"{directory.name}-faults"
        self.faults.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._output = directory.parent / f"{directory.name}-up.out"

    # ---- life

    def start(self) -> Fleet:
        """Start `hgfleet up` and wait for its `ready`."""
        self._process = self.spawn()
        wait_until(
            self._is_ready, what="`up` prints ready", deadline_seconds=START_SECONDS, explain=self.explain
        )
        return self

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start `hgfleet up` without waiting."""
        where = ["--dir", str(self.directory), "--mirrors", str(self.mirrors)]
        with self._output.open("wb") as output:
            return subprocess.Popen(
                [str(HGFLEET), "up", *where, *self._ports()],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
            )

    def _ports(self) -> list[str]:
        names = ("--ssh-port", "--http-port", "--https-port", "--admin-port")
        return [word for name in names for word in (name, "0")] + list(self._options)

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"hgfleet up ended: {self.explain()}"
        return "ready" in self.output().splitlines()

    def output(self) -> str:
        """Return what `hgfleet up` printed so far."""
        return self._output.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop as an operator does and return the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(STOP_SECONDS)
        self._process = None
        return status

    def kill(self) -> None:
        """Kill `up` itself; its children must end by themselves."""
        assert self._process is not None
        children = self.children()
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._process = None
        wait_until(
            lambda: not [child for child in children if is_alive(child.pid)],
            what="the children of a killed `up` end",
            deadline_seconds=STOP_SECONDS,
        )

    def close(self) -> None:
        """Stop whatever still runs; for the end of a test."""
        if self._process is not None and self._process.poll() is None:
            for child in self._known_children():
                if is_alive(child.pid):
                    child.signal(signal.SIGCONT)
            self.stop()
        self._process = None

    # ---- what it says about itself

    @property
    def endpoints(self) -> dict[str, Any]:
        """Return endpoints.json as it is now."""
        value: dict[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return value

    def children(self, role: str | None = None, host: str | None = None) -> list[Child]:
        """Return the fleet's processes, of one role and host if given."""
        found = [
            Child(str(entry["name"]), str(entry["role"]), str(entry["host"]), int(entry["pid"]))
            for entry in self.endpoints["processes"]
        ]
        return [c for c in found if role in (None, c.role) and host in (None, c.host)]

    def _known_children(self) -> list[Child]:
        return self.children() if (self.directory / "endpoints.json").exists() else []

    def child(self, role: str, host: str | None = None) -> Child:
        """Return the one process of a role (and host)."""
        found = self.children(role, host)
        assert len(found) == 1, found
        return found[0]

    def kill_child(self, role: str, host: str | None = None) -> None:
        """Kill one process with SIGKILL and wait until another has taken its place."""
        before = self.child(role, host)
        before.signal(signal.SIGKILL)
        self.wait_replaced(before)

    def wait_replaced(self, before: Child) -> None:
        """Wait until `up` has restarted a process that died."""

        def is_replaced() -> bool:
            now = self.children(before.role, before.host)
            return bool(now) and all(c.pid != before.pid and is_alive(c.pid) for c in now)

        wait_until(is_replaced, what=f"{before.name} restarted", explain=self.explain)

    @contextmanager
    def paused(self, role: str, host: str) -> Iterator[None]:
        """Hold one process still with SIGSTOP, its own children included."""
        pids = [pid for child in self.children(role, host) for pid in (child.pid, *descendants(child.pid))]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                if is_alive(pid):
                    os.kill(pid, signal.SIGCONT)

    def mirror_names(self) -> list[str]:
        """Return the mirrors' names in order."""
        return [str(mirror["name"]) for mirror in self.endpoints["mirrors"]]

    def explain(self) -> str:
        """Return the ends of all logs: what a person would look at first."""
        parts = [f"==> up\n{_tail(self._output)}"]
        parts += [f"==> {path.name}\n{_tail(path)}" for path in sorted(self.directory.glob("logs/*"))]
        return "\n".join(parts)

    # ---- where commands and clients run

    def operator(self) -> tuple[str, ...]:
        """Return what comes before a command of an operator; () where the fleet is on this machine."""
        return ()

    def customer(self, directory: Path | None = None) -> tuple[str, ...]:
        """Return what comes before a program of somebody who uses the fleet, started in a directory."""
        return here(directory)

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a connection as such a program would make it."""
        return socket.create_connection((host, port), ANSWER_SECONDS)

    def fetch(self, url: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
        """Ask a URL of this fleet, trusting its own CA; redirects are followed."""
        for _ in range(REDIRECTS):
            reply = fetch(self.connect, url, self.ca_file, method=method, headers=headers or {})
            if reply.status not in {301, 302, 307, 308}:
                return reply
            url = reply.headers["location"]
        raise AssertionError(f"redirects without an end: {url}")

    # ---- commands and clients

    def environment(self) -> dict[str, str]:
        """Return the environment for `up` and commands: faults on, nothing of this machine's hgrc."""
        home = self.directory.parent
        return clean_environment(home) | {"HGFLEET_FAULTS": str(self.faults), "HGFLEET_ALLOW_FAULTS": "1"}

    def cli(self, *args: str, timeout_seconds: float = 120.0) -> Outcome:
        """Run an `hgfleet` command against this fleet."""
        return run(
            [*self.operator(), str(HGFLEET), *args],
            env=self._cli_environment(),
            timeout_seconds=timeout_seconds,
        )

    def start_cli(self, *args: str) -> subprocess.Popen[bytes]:
        """Start an `hgfleet` command and return at once; the caller finishes it."""
        return subprocess.Popen(
            [*self.operator(), str(HGFLEET), *args],
            env=self._cli_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _cli_environment(self) -> dict[str, str]:
        return self.environment() | {"HGFLEET_DIR": str(self.directory)}

    def paths(self) -> set[str]:
        """Return the repositories that exist."""
        return {str(repository["path"]) for repository in self.cli_json("repo", "list")}

    def cli_json(self, *args: str) -> Any:
        """Run a reading command with --json and return the value."""
        return json.loads(self.cli(*args, "--json").ok().out)

    def show(self, path: str) -> dict[str, Any] | None:
        """Return what is known of a repository and of every host's copy; None where that cannot be said."""
        shown = self.cli("repo", "show", path, "--json")
        value: dict[str, Any] | None = json.loads(shown.out) if shown.status == 0 else None
        return value

    def create(self, path: str, *options: str) -> str:
        """Create a repository and return its path."""
        self.cli("repo", "create", path, *options).ok()
        return path

    def client(self, executable: Path = CURRENT_HG, *config: str) -> HgClient:
        """Return a Mercurial client that reaches this fleet as its example account."""
        settings = (f"ui.ssh={self.ssh_command()}", f"web.cacerts={self.ca_file}", *config)
        return HgClient(executable, self.directory.parent, settings, self.customer)

    def ssh_command(self, key_file: Path | None = None) -> str:
        """Return the ssh command line that trusts this fleet's host key and nothing else."""
        key = key_file or Path(self.endpoints["key_file"])
        known = self.endpoints["ssh"].get("known_hosts", "/dev/null")
        checks = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={known}")
        options = ("IdentitiesOnly=yes", "LogLevel=ERROR", *checks)
        return f"ssh -F none -i {key} " + " ".join(f"-o {option}" for option in options)

    def ssh(self, command: str, *, account: str | None = None, key_file: Path | None = None) -> Outcome:
        """Run a command over SSH as an account."""
        ssh = self.endpoints["ssh"]
        name = account or self.endpoints["account"]
        words = [*self.ssh_command(key_file).split(), "-p", str(ssh["port"]), f"{name}@{ssh['host']}"]
        return run([*self.customer(), *words, *([command] if command else [])], env=self.environment())

    @property
    def ca_file(self) -> str:
        """Return the CA certificate that signed the fleet's own."""
        return str(self.endpoints["ca_file"])

    def ssh_url(self, path: str, account: str | None = None) -> str:
        """Return the URL to push to."""
        ssh = self.endpoints["ssh"]
        return f"ssh://{account or self.endpoints['account']}@{ssh['host']}:{ssh['port']}/{path}"

    def https_url(self, path: str = "") -> str:
        """Return the URL to clone from, through whatever stands in front."""
        return f"{self.endpoints['https'].rstrip('/')}/{path}"

    def mirror_url(self, name: str, path: str = "") -> str:
        """Return one mirror's own URL."""
        [url] = [mirror["url"] for mirror in self.endpoints["mirrors"] if mirror["name"] == name]
        return f"{url.rstrip('/')}/{path}"

    # ---- faults

    def set_fault(self, point: str, action: str) -> None:
        """Arm a fault point: `kill`, `stall` or `enospc`."""
        (self.faults / f"{point}.reached").unlink(missing_ok=True)  # of a process that died there
        partial = self.faults / f".{point}"
        partial.write_text(action)
        partial.rename(self.faults / point)

    def clear_fault(self, point: str) -> None:
        """Disarm a fault point; a process stalled there goes on."""
        (self.faults / point).unlink(missing_ok=True)

    def wait_stalled(self, point: str) -> None:
        """Wait until a process stands at an armed `stall`."""
        self.wait((self.faults / f"{point}.reached").exists, f"a process reaches {point}")

    def is_armed(self, point: str) -> bool:
        """Tell whether nobody has come by an armed point yet."""
        return (self.faults / point).exists()

    def wait(self, condition: Callable[[], object], what: str, deadline_seconds: float = 30.0) -> None:
        """Wait on a state of this fleet; print its logs when it does not come."""
        wait_until(condition, what=what, deadline_seconds=deadline_seconds, explain=self.explain)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def descendants(pid: int) -> list[int]:
    """Return the pids of a process's children, whichever of its threads started them, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [each for child in children for each in (child, *descendants(child))]
    return found


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])
