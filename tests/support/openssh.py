"""A real sshd in front of a running fleet whose configuration says `ssh.kind = "openssh"`.

sshd lets in only names that the system knows: nss_wrapper gives it this fleet's accounts, all with our own
user id, as a site's NSS would map them to the user that hgfleet runs as.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import ROOT, Outcome
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until
from tools.programs import PACKAGES, find_library

PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd as root wants this directory, wherever it lies itself
STOP_SECONDS = 10.0
_SPLIT_SINCE_9_8 = ("sshd-session", "sshd-auth")


@dataclass(frozen=True, slots=True)
class Accounts:
    """The names that sshd knows: a passwd and a group file of our own."""

    directory: Path

    def write(self, names: Sequence[str]) -> None:
        """Make these the accounts, besides our own user's name and those that sshd itself needs."""
        uid, gid, home = os.getuid(), os.getgid(), self.directory
        own = pwd.getpwuid(uid).pw_name
        lines = [f"{name}:x:{uid}:{gid}::{home}:/bin/sh" for name in dict.fromkeys([own, *names])]
        lines.append(f"sshd:x:65533:65533::{PRIVILEGE_SEPARATION}:/bin/sh")
        self._replace("passwd", lines)
        self._replace("group", [f"{own}:x:{gid}:"])

    def environment(self) -> dict[str, str]:
        """Return what makes a process see these accounts."""
        [package] = [package for package in PACKAGES if package.name == "libnss-wrapper"]
        library = find_library(package)
        assert library is not None, "libnss-wrapper is missing; make setup-test"
        return {
            "PATH": os.environ["PATH"],
            "LD_PRELOAD": str(library),
            "NSS_WRAPPER_PASSWD": str(self.directory / "passwd"),
            "NSS_WRAPPER_GROUP": str(self.directory / "group"),
        }

    def _replace(self, name: str, lines: list[str]) -> None:
        partial = self.directory / f"{name}.new"
        partial.write_text("".join(f"{line}\n" for line in lines))
        partial.rename(self.directory / name)


class OpenSsh:
    """One sshd, on the address and port that the fleet's configuration names."""

    def __init__(self, fleet: Fleet, *, prefix: Sequence[str] = ()) -> None:
        """Prepare; `prefix` is put before the program, such as ("ip", "netns", "exec", "primary")."""
        self.fleet = fleet
        self.directory = fleet.directory.parent / f"{fleet.directory.name}-sshd"
        self.directory.mkdir(exist_ok=True)
        self.accounts = Accounts(self.directory)
        self.log = self.directory / "sshd.log"
        self._prefix = tuple(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The listening process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> OpenSsh:
        """Start sshd and wait until it answers."""
        self.sync_accounts()
        make_privilege_separation_directory()
        config = self.write_config()
        program = shutil.which("sshd")
        assert program is not None, "sshd is missing; make setup-test"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, program, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.accounts.environment(),
            )
        wait_until(self._is_listening, what="sshd answers", explain=self.explain)
        return self

    def write_config(self) -> Path:
        """Write the fleet's rendered configuration, with what only this environment needs before it."""
        path = self.directory / "sshd_config"
        rendered = self.fleet.cli("render", "sshd").ok().out
        path.write_text("".join(f"{line}\n" for line in environment_lines()) + rendered)
        return path

    def sync_accounts(self) -> None:
        """Let sshd know the accounts that the fleet's file of accounts has now."""
        content = tomllib.loads((self.fleet.directory / "directory.toml").read_text())
        self.accounts.write(sorted(content.get("accounts", {})))

    def stop(self) -> None:
        """Stop listening; sessions that are open go on, as sshd leaves them."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        self._process = None

    def explain(self) -> str:
        """Return what sshd said."""
        return f"==> sshd\n{self.log.read_text(errors='replace')[-4000:]}\n{self.fleet.explain()}"

    def _is_listening(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.explain()
        ssh = self.fleet.endpoints["ssh"]
        try:
            with socket.create_connection((ssh["host"], ssh["port"]), 1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def environment_lines() -> list[str]:
    """Return what a test's sshd needs beside the rendered file; the first value of a keyword counts."""
    lines = []
    if os.getuid() == 0:  # every account is mapped to our own user
        lines.append("PermitRootLogin forced-commands-only")
    prefix = ROOT / ".tools" / "prefix" / "openssh-server" / "usr" / "lib" / "openssh"
    for name in _SPLIT_SINCE_9_8:
        if (prefix / name).exists():
            keyword = "".join(part.capitalize() for part in name.split("-"))
            lines.append(f"{keyword}Path {prefix / name}")
    return lines


def make_privilege_separation_directory() -> None:
    """Make the directory that sshd as root chroots its unprivileged half to, as its service does."""
    if os.getuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)


class OpenSshFleet(Fleet):
    """A fleet whose SSH front is OpenSSH; sshd starts and stops with it."""

    def __init__(self, directory: Path, *, mirrors: int = 1, config: str = "") -> None:
        super().__init__(directory, mirrors=mirrors, config=f'{config}\n[ssh]\nkind = "openssh"\n')
        self.sshd = OpenSsh(self)

    def start(self) -> OpenSshFleet:
        super().start()
        self.sshd.start()
        return self

    def close(self) -> None:
        self.sshd.stop()
        super().close()

    def cli(self, *args: str, timeout_seconds: float = 120.0) -> Outcome:
        outcome = super().cli(*args, timeout_seconds=timeout_seconds)
        if args[0] == "user":
            self.sshd.sync_accounts()
        return outcome
