"""A log agent, a coordinator and mirrors' appliers as real processes, and a primary that writes in this one.

Faults are armed per process: each has a directory of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hgfleet.adapters import view_files
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.processes import Child, Program, start
from hgfleet.adapters.serving_file import Serving, read_serving
from hgfleet.errors import FleetError
from hgfleet.hgext import local_ui, state_digest
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.recovery import bring_up_to_date
from hgfleet.model.ids import RepoId, Seq
from hgfleet.model.settings import RepoSettings
from hgfleet.model.state import last_record
from tests.support.clients import ROOT
from tests.support.fleet import descendants, is_alive
from tests.support.waiting import wait_until

LOG_TAIL_LINES = 40
_ui: list[Any] = []


class Process:
    """One process of the fleet, started again under the same name."""

    def __init__(self, directory: Path, role: str, host: str = "") -> None:
        self.name = host or role
        self.faults = directory / f"faults-{self.name}"
        self.faults.mkdir()
        self._arguments = (
            sys.executable,
            "-m",
            "tests.support.replication_process",
            role,
            str(directory),
            host,
        )
        self._output = directory / f"{self.name}.log"
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} does not run"
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.exit_status() is None

    def start(self) -> None:
        """Start it; a dead one is forgotten."""
        assert not self.is_running
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "HGFLEET_FAULTS": str(self.faults),
            "HGRCPATH": "",
        }
        with self._output.open("ab") as output:
            self._child = start(
                Program(self._arguments, environment=environment, stdout=output, stderr=output)
            )

    def stop(self) -> int:
        """Stop as a supervisor does and return the exit status."""
        assert self._child is not None
        return self._child.stop(20)

    def kill(self) -> None:
        """Kill it alone; what it started must end by itself."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_dead()

    def restart(self) -> None:
        """Start it again after it died."""
        self.wait_dead()
        self.start()

    def wait_dead(self) -> None:
        assert self._child is not None
        assert self._child.wait(20) is not None, f"{self.name} still runs"

    def freeze(self) -> None:
        """Stop it and its workers in their tracks."""
        for pid in (self.pid, *descendants(self.pid)):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for pid in (self.pid, *descendants(self.pid)):
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)

    def arm(self, point: str, action: str) -> None:
        """Arm a fault point."""
        partial = self.faults / f".{point}"
        partial.write_text(action)
        partial.rename(self.faults / point)

    def disarm(self, point: str) -> None:
        (self.faults / point).unlink(missing_ok=True)

    def disarm_all(self) -> None:
        """Disarm every point."""
        for path in self.faults.iterdir():
            path.unlink(missing_ok=True)

    def has_reached(self, point: str) -> bool:
        """Whether a stalled process stands there, or a killing point was used up."""
        return self._stalled_pid(point) != "" or not (self.faults / point).exists()

    def _stalled_pid(self, point: str) -> str:
        """Return the pid as far as it is written: the file appears before its content."""
        path = self.faults / f"{point}.reached"
        return path.read_text() if path.exists() else ""

    def freeze_at(self, point: str) -> int:
        """Hold the process that is stalled at a point in its tracks, let others pass; return its pid."""
        pid = int(self._stalled_pid(point))
        os.kill(pid, signal.SIGSTOP)
        self.disarm(point)
        return pid

    def text(self) -> str:
        """Return all that it has logged."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def has_logged(self, *words: str) -> bool:
        """Whether one line has all the words."""
        return any(all(word in line for word in words) for line in self.text().splitlines())

    def tail(self) -> str:
        lines = self.text().splitlines()
        return "\n".join([f"==> {self.name}", *lines[-LOG_TAIL_LINES:]])


@dataclass
class Mirror:
    """One mirror's files and its applier."""

    name: str
    home: Path
    process: Process

    def serving(self) -> Serving | None:
        return read_serving(self.home / "serving.json")

    @property
    def is_ready(self) -> bool:
        serving = self.serving()
        return serving is not None and serving.is_ready()

    def exposed(self, repository: RepoId) -> int:
        """Up to where its readers see the repository; 0: not at all."""
        view = view_files.read_exposed(self.hg_directory(repository))
        return view.seq if view is not None else 0

    def applied(self, repository: RepoId) -> int:
        """Up to where its copy is."""
        try:
            data = (self.hg_directory(repository) / "store" / "hgfleet-seq").read_bytes()
            return int(json.loads(last_record(data))["seq"])
        except FileNotFoundError:
            return 0

    def hg_directory(self, repository: RepoId) -> Path:
        return self.home / "repos" / repository / "current" / ".hg"

    def table(self, name: str) -> dict[str, str]:
        """Return a table of catalogue.sqlite."""
        import sqlite3

        connection = sqlite3.connect(self.home / "catalogue.sqlite")
        try:
            return dict(connection.execute(f"SELECT * FROM {name}"))
        finally:
            connection.close()

    def paths(self) -> dict[str, str]:
        return self.table("paths")

    def parked(self) -> dict[str, str]:
        return self.table("parked")

    def answers(self, repository: Repository) -> bool:
        """Whether the path leads to the repository here and it is not refused."""
        return self.paths().get(repository.path) == repository.id and repository.id not in self.parked()

    def digest(self, repository: RepoId) -> str:
        """Return the full digest of its copy."""
        return _digest(Copy(_load_ui(), self.home / "repos" / repository))


@dataclass
class Repository:
    """A repository of the primary."""

    path: str
    id: RepoId
    copy: Copy
    commits: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def seq(self) -> Seq:
        state = self.copy.state
        assert state is not None
        return state.seq

    def digest(self) -> str:
        return _digest(self.copy)


class MirrorFleet:
    """Everything, below one directory."""

    def __init__(self, directory: Path, mirrors: int = 2, retention: dict[str, float] | None = None) -> None:
        if retention is not None:
            (directory / "retention.json").write_text(json.dumps(retention))
        self.directory = directory
        self.agent = Process(directory, "log-agent")
        self.coordinator = Process(directory, "coordinator")
        names = [f"mirror{number}" for number in range(1, mirrors + 1)]
        self.mirrors = [Mirror(n, directory / n, Process(directory, "applier", n)) for n in names]
        self.client = LogAgentClient(directory / "agent.sock")

    # ---- life

    def start(self) -> MirrorFleet:
        """Start everything and wait until every mirror serves."""
        self.agent.start()
        self.wait(self._is_agent_serving, "the log agent serves")
        self.coordinator.start()
        for mirror in self.mirrors:
            mirror.process.start()
        self.wait_ready()
        return self

    def close(self) -> None:
        """Kill whatever still runs."""
        for process in self.processes:
            if process.is_running:
                process.thaw()
                process.kill()
        self.client.close()

    @property
    def processes(self) -> list[Process]:
        return [self.agent, self.coordinator, *(mirror.process for mirror in self.mirrors)]

    def wait(self, condition: Callable[[], object], what: str, deadline_seconds: float = 30.0) -> None:
        """Wait on a state; print the logs when it does not come."""
        wait_until(condition, what=what, deadline_seconds=deadline_seconds, explain=self.explain)

    def wait_ready(self) -> None:
        self.wait(lambda: all(mirror.is_ready for mirror in self.mirrors), "every mirror is ready")

    def explain(self) -> str:
        return "\n".join(process.tail() for process in self.processes)

    def _is_agent_serving(self) -> bool:
        try:
            return self.client.hello().is_serving
        except FleetError:
            return False

    def wait_agent(self) -> None:
        self.wait(self._is_agent_serving, "the log agent serves")

    # ---- the primary

    def create(self, path: str) -> Repository:
        """Create a repository."""
        settings = RepoSettings(writers=("all",), is_publishing=False).to_json()
        created = self.client.create(path, settings, identity="alice", trace="t")
        copy = Copy(_load_ui(), self.directory / "primary" / "repos" / created.repository)
        bring_up_to_date(copy, created.repository, self._primary_agent())
        return Repository(path, created.repository, copy)

    def push(self, repository: Repository, count: int = 1, size_bytes: int = 10) -> None:
        """Add changesets, one push each."""
        for _ in range(count):
            self.change(repository, lambda repo, tr: _commit(repo, next(repository.commits), size_bytes))

    def change(self, repository: Repository, change: Callable[[Any, Any], object]) -> None:
        """Change the primary's copy in one transaction: one message."""
        repo = repository.copy.repo
        with repo.wlock(), repo.lock(), repo.transaction(b"test") as tr:
            change(repo, tr)

    def delete(self, repository: Repository) -> None:
        """Delete a repository."""
        self.client.delete(repository.path, identity="alice", trace="t")

    def _primary_agent(self) -> LogAgentClient:
        return LogAgentClient(self.directory / "agent.sock")

    # ---- looking

    def wait_exposed(self, repository: Repository, *mirrors: Mirror, deadline_seconds: float = 30.0) -> None:
        """Wait until mirrors (all of them unless named) show everything of the repository."""
        chosen = mirrors or tuple(self.mirrors)
        self.wait(
            lambda: all(mirror.exposed(repository.id) == repository.seq for mirror in chosen),
            f"{repository.path} is exposed at {repository.seq} on {[m.name for m in chosen]}",
            deadline_seconds,
        )

    def assert_converged(self, *repositories: Repository) -> None:
        """Every mirror shows everything, and every copy is the primary's, digest for digest."""
        for repository in repositories:
            self.wait_exposed(repository)
            expected = repository.digest()
            for mirror in self.mirrors:
                self.wait(partial(mirror.answers, repository), f"{mirror.name} serves {repository.path}")
                assert mirror.digest(repository.id) == expected, f"{mirror.name}: {repository.path}"


def use_agent(directory: Path) -> None:
    """Make this process the primary of the fleet in `directory`."""
    for name, value in (
        ("role", "primary"),
        ("host", "primary"),
        ("agent-socket", str(directory / "agent.sock")),
    ):
        _load_ui().setconfig(b"hgfleet", name.encode(), value.encode(), b"test")


def _load_ui() -> Any:
    """Load Mercurial once per process, as a primary's tool would."""
    if not _ui:
        os.environ["HGRCPATH"] = ""
        _ui.append(local_ui.load_ui(local_ui.LocalOptions(role="primary", host="primary")))
    return _ui[0]


def _digest(copy: Copy) -> str:
    copy.forget()
    return state_digest.full_digest(copy.repo)


def _commit(repo: Any, number: int, size_bytes: int) -> None:
    from mercurial import context

    name, data = b"file%d" % (number % 3), b"%d\n" % number * (size_bytes // 4 + 1)

    def content(repo: Any, memctx: Any, path: bytes) -> Any:
        return context.memfilectx(repo, memctx, path, data)

    tip = repo[b"tip"].node()
    changeset = context.memctx(
        repo, (tip, b"\0" * 20), b"change %d" % number, [name], content, b"alice", b"%d 0" % number
    )
    repo.commitctx(changeset)
