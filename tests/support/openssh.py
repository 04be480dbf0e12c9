"""A real sshd in front of a running fleet whose configuration says `ssh.kind = "openssh"`.

sshd lets in only names that the system knows: nss_wrapper gives it this fleet's accounts, all with our own
user id, as a site's NSS would map them to the user that hgfleet runs as.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import ROOT, Outcome, run
from tests.support.fleet import Fleet
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


class Sshd:
    """One sshd: our configuration, and only what this environment needs before it."""

    def __init__(self, directory: Path, *, prefix: Sequence[str] = ()) -> None:
        """Prepare; `prefix` is put before the program, such as ("ip", "netns", "exec", "primary")."""
        directory.mkdir(parents=True, exist_ok=True)
        self.accounts = Accounts(directory)
        self.config = directory / "sshd_config"
        self.log = directory / "sshd.log"
        self.log.touch()
        self._prefix = tuple(prefix)
        self._wrapper = directory / "sshd"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The listening process."""
        assert self._process is not None
        return self._process.pid

    def write_config(self, rendered: str) -> Path:
        """Write the configuration."""
        self.config.write_text(rendered)
        return self.config

    def write_wrapper(self) -> Path:
        """Return a program that is sshd with our accounts, for whoever starts it without our environment."""
        words = [f"{name}={value}" for name, value in self.accounts.environment().items()]
        text = shlex.join(["exec", "env", *words, str(find_sshd()), *environment_options()])
        self._wrapper.write_text(f'#!/bin/sh\n{text} "$@"\n')
        self._wrapper.chmod(0o755)
        make_privilege_separation_directory()
        return self._wrapper

    def start(self) -> None:
        """Start it in the foreground of a process of its own, listening where its configuration says."""
        make_privilege_separation_directory()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, str(find_sshd()), "-D", "-e", "-f", str(self.config), *environment_options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.accounts.environment(),
            )

    def is_listening(self, address: str, port: int) -> bool:
        """Tell whether it answers there; an AssertionError when it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            with socket.create_connection((address, port), 1.0) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """Stop listening; sessions that are open go on, as sshd leaves them."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        self._process = None

    def explain(self) -> str:
        """Return what sshd said."""
        return f"==> sshd\n{self.log.read_text(errors='replace')[-4000:]}"


@functools.cache
def sshd_version() -> tuple[int, ...]:
    """Return OpenSSH's version, such as (9, 2)."""
    found = re.search(r"OpenSSH_([0-9]+)\.([0-9]+)", run([str(find_sshd()), "-V"]).text)
    assert found is not None
    return tuple(int(number) for number in found.groups())


def find_sshd() -> Path:
    """Return sshd's path: the system's, or the one that was fetched."""
    found = shutil.which("sshd")
    assert found is not None, "sshd is missing; make setup-test"
    return Path(found)


def environment_options() -> list[str]:
    """Return what a test's sshd is told besides the rendered file, before which it counts."""
    lines = []
    if os.getuid() == 0:  # every account is mapped to our own user
        lines.append("PermitRootLogin forced-commands-only")
    if sshd_version() >= (9, 8):  # tests fail to log in more often than an address usually may
        lines.append("PerSourcePenalties no")
    prefix = ROOT / ".tools" / "prefix" / "openssh-server" / "usr" / "lib" / "openssh"
    for name in _SPLIT_SINCE_9_8:
        if (prefix / name).exists():
            keyword = "".join(part.capitalize() for part in name.split("-"))
            lines.append(f"{keyword}Path {prefix / name}")
    return [word for line in lines for word in ("-o", line)]


def make_privilege_separation_directory() -> None:
    """Make the directory that sshd as root chroots its unprivileged half to, as its service does."""
    if os.getuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)


class OpenSshFleet(Fleet):
    """A fleet whose SSH front is OpenSSH; sshd starts and stops with it."""

    def __init__(self, directory: Path, *, mirrors: int = 1, config: str = "", ssh: str = "") -> None:
        """Prepare a fleet; `ssh` is what its configuration's [ssh] has besides the kind."""
        config = f'{config}\n[ssh]\nkind = "openssh"\n{ssh}'
        super().__init__(directory, mirrors=mirrors, config=config)
        self.sshd = Sshd(directory.parent / f"{directory.name}-sshd")
        self.accounts_elsewhere: tuple[str, ...] = ()

    def configure_program(self) -> None:
        """Have the fleet itself start sshd with our accounts; before start()."""
        with (self.directory / "hgfleet.toml").open("a") as file:
            file.write(f'[openssh]\nprogram = "{self.sshd.write_wrapper()}"\n')

    def start(self) -> OpenSshFleet:
        super().start()
        self.start_sshd()
        return self

    def start_sshd(self) -> None:
        """Start sshd with the configuration that the fleet renders now, and wait until it answers."""
        self.sync_accounts()
        self.sshd.write_config(self.cli("render", "sshd").ok().out)
        self.sshd.start()
        ssh = self.endpoints["ssh"]
        self.wait(lambda: self.sshd.is_listening(ssh["host"], ssh["port"]), "sshd answers")

    def close(self) -> None:
        self.sshd.stop()
        super().close()

    def cli(self, *args: str, timeout_seconds: float = 120.0) -> Outcome:
        outcome = super().cli(*args, timeout_seconds=timeout_seconds)
        if args[0] == "user":
            self.sync_accounts()
        return outcome

    def sync_accounts(self) -> None:
        """Let sshd know the accounts that the fleet's file of accounts has now, and those in LDAP."""
        path = self.directory / "directory.toml"
        content = tomllib.loads(path.read_text()) if path.exists() else {}
        self.sshd.accounts.write([*sorted(content.get("accounts", {})), *self.accounts_elsewhere])

    def explain(self) -> str:
        return f"{self.sshd.explain()}\n{super().explain()}"
