"""Real Mercurial clients, run as a person would: a process, its arguments, what it printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CURRENT_HG = Path(sys.executable).with_name("hg")
OLDER_HG = ROOT / ".tools" / "clients" / "hg-6.9" / "bin" / "hg"
OLD_CLIENTS = ROOT / ".tools" / "clients"  # built by tools/old_clients.py where there is a Python 2.7
TIMEOUT_SECONDS = 120.0


def old_clients() -> dict[str, Path]:
    """Return by version the clients that need Python 2.7, whether they are there or not."""
    lines = (ROOT / "requirements" / "old-hg.lock").read_text().splitlines()
    versions = [line.split()[0].partition("==")[2] for line in lines if line and not line.startswith("#")]
    return {version: OLD_CLIENTS / f"hg-{version}" / "bin" / "hg" for version in versions}


def left_out() -> list[str]:
    """Return the versions of clients that this machine has no Python for."""
    return [version for version, hg in old_clients().items() if not hg.exists()]


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """What a finished command left behind."""

    args: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything printed, for assertions that do not care where."""
        return self.out + self.err

    def ok(self) -> Outcome:
        """Return itself; raise AssertionError unless the command succeeded."""
        assert self.status == 0, self
        return self

    def __repr__(self) -> str:
        return f"\n$ {' '.join(self.args)}\n[{self.status}]\n{self.out}{self.err}"


def run(
    args: list[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: bytes = b"",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Outcome:
    """Run a command to its end."""
    done = subprocess.run(
        args, cwd=cwd, env=env, input=stdin, capture_output=True, timeout=timeout_seconds, check=False
    )
    return Outcome(tuple(args), done.returncode, _text(done.stdout), _text(done.stderr))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def clean_environment(home: Path) -> dict[str, str]:
    """Return an environment in which nothing of this machine's configuration shows."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "HGRCPATH": "",
        "HGPLAIN": "1",
        "HGENCODING": "UTF-8",
        "LANG": "C.UTF-8",
        "HGUSER": "Alice Example <alice@example.org>",
    }


def here(_directory: Path | None) -> tuple[str, ...]:
    """Put nothing before a command: it runs on this machine."""
    return ()


@dataclass(frozen=True, slots=True)
class HgClient:
    """One installed Mercurial with what it needs to reach a fleet."""

    executable: Path
    home: Path
    config: tuple[str, ...] = ()  # name=value
    enter: Callable[[Path | None], tuple[str, ...]] = here  # what comes before it, in a directory

    def run(
        self, *args: str | Path, cwd: Path | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Outcome:
        """Run `hg` with the client's configuration."""
        argv = [*self.enter(cwd), *self.argv(*args)]
        return run(argv, cwd=cwd, env=self.environment(), timeout_seconds=timeout_seconds)

    def argv(self, *args: str | Path) -> list[str]:
        """Return the whole command line, for tests that start it themselves."""
        options = [word for item in self.config for word in ("--config", item)]
        return [str(self.executable), *options, *(str(arg) for arg in args)]

    def environment(self) -> dict[str, str]:
        """Return the environment `hg` runs in."""
        return clean_environment(self.home)

    def start(self, *args: str | Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start `hg` and return at once; the caller waits for it."""
        return subprocess.Popen(
            [*self.enter(cwd), *self.argv(*args)],
            cwd=cwd,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def finish(process: subprocess.Popen[bytes], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Outcome:
    """Wait for a started command and return what it printed."""
    out, err = process.communicate(timeout=timeout_seconds)
    assert isinstance(process.args, list)
    return Outcome(tuple(str(arg) for arg in process.args), process.returncode, _text(out), _text(err))
