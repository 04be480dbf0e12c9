"""A fleet of several hosts that share this machine: one `hgfleet run` tree per role, loopback addresses.

Each host has an address 127.0.0.x, a run directory and copies of its own; all read one file and share one
embedded log. Clients pin the mirrors' certificate by its fingerprint: hg ignores addresses in certificates.
"""

from __future__ import annotations

import hashlib
import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.free_ports import free_port
from hgfleet.adapters.ssh_key_files import ensure_key_pair, format_known_hosts
from hgfleet.adapters.tls import CertificateFiles, ensure_certificates
from hgfleet.adapters.toml_directory_edit import add_account, create_directory_file
from tests.support.clients import CURRENT_HG, HgClient, Outcome, run
from tests.support.fleet import HGFLEET, STOP_SECONDS, Child, Fleet, is_alive
from tests.support.waiting import wait_until

ACCOUNT = "example"
START_SECONDS = 180.0  # some twenty processes at once
_ADMIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class TestHost:
    """One host of the test's fleet."""

    name: str
    address: str
    roles: tuple[str, ...]
    ssh_port: int
    https_port: int
    admin_port: int

    def toml(self) -> str:
        """Return its table."""
        names = ("name", "address", "roles", "ssh_port", "https_port", "admin_port")
        values = "".join(f"{name} = {json.dumps(getattr(self, name))}\n" for name in names)
        return f"[[hosts]]\n{values}\n"

    @property
    def runs(self) -> list[str]:
        """Return the roles that `hgfleet run` is started with, in order."""
        first = [role for role in self.roles if role in {"primary", "standby", "mirror"}]
        return [*first, *(["web"] if "mirror" in first else []), *self.roles[len(first) :]]


def plan_hosts(roles_by_name: dict[str, tuple[str, ...]]) -> list[TestHost]:
    """Give every host an address and ports that are free now."""
    hosts = []
    for number, (name, roles) in enumerate(roles_by_name.items(), start=11):
        address = f"127.0.0.{number}"
        ports = (free_port(address) for _ in range(3))
        hosts.append(TestHost(name, address, roles, *ports))
    return hosts


class HostFleet(Fleet):
    """The trees of all hosts, each of which can be stopped and killed by itself."""

    def __init__(
        self, directory: Path, roles_by_name: dict[str, tuple[str, ...]], *, config: str = ""
    ) -> None:
        """Prepare the one file and what an operator puts beside it; `config` is more of the file."""
        self.hosts = plan_hosts(roles_by_name)
        hosts = "".join(host.toml() for host in self.hosts)
        super().__init__(directory, config=f"{config}\n[testing]\nallow_faults = true\n{hosts}")
        self._runs: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self._make_keys()

    def _make_keys(self) -> None:
        keys, account = self.directory / "keys", self.directory / "account"
        keys.mkdir()
        account.mkdir()
        files = CertificateFiles(*(keys / name for name in _CERTIFICATE_FILES))
        ensure_certificates(files, ["localhost", *(host.address for host in self.hosts)])
        host_key = ensure_key_pair(keys / "ssh_host_ed25519", "host key")
        key = ensure_key_pair(account / "id_ed25519", ACCOUNT)
        create_directory_file(self.directory / "directory.toml")
        groups = ["creators", "developers"]
        add_account(self.directory / "directory.toml", ACCOUNT, groups=groups, keys=[f"{key} {ACCOUNT}"])
        known = "".join(
            format_known_hosts([host.address], host.ssh_port, host_key)
            for host in self.hosts
            if host.runs[:1] in (["primary"], ["standby"])
        )
        (account / "known_hosts").write_text(known)

    # ---- life

    def start(self) -> HostFleet:
        """Start every role of every host and wait until all of them are ready."""
        for host in self.hosts:
            for role in host.runs:
                self.launch(host.name, role)
        for name, role in list(self._runs):
            self.wait_up(name, role)
        self.wait_serving(*self.mirror_names())
        return self

    def launch(self, name: str, role: str) -> None:
        """Start one role of one host, without waiting."""
        output = self._run_output(name, role)
        with output.open("wb") as file:
            self._runs[name, role] = subprocess.Popen(
                [sys.executable, "-c", _CONFINED, str(HGFLEET), "run", role, *self._where(name)],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment(),
            )

    def wait_up(self, name: str, role: str) -> None:
        """Wait until a role says that it is ready."""

        def is_up() -> bool:
            assert self._runs[name, role].poll() is None, f"{name}/{role} ended: {self.explain()}"
            return "ready" in self._run_output(name, role).read_text(errors="replace").splitlines()

        wait_until(
            is_up, what=f"{role} of {name} is ready", deadline_seconds=START_SECONDS, explain=self.explain
        )

    def run_role(self, name: str, role: str) -> None:
        """Start one role of one host and wait until it is ready."""
        self.launch(name, role)
        self.wait_up(name, role)

    def stop_role(self, name: str, role: str, number: int = signal.SIGTERM) -> int:
        """Stop one tree as systemd does and return its exit status."""
        process = self._runs.pop((name, role))
        process.send_signal(number)
        return process.wait(STOP_SECONDS)

    def kill_role(self, name: str, role: str) -> None:
        """Kill the head of a tree with SIGKILL and wait until its processes have ended, too."""
        children = self.children_of(name, role)
        self.stop_role(name, role, signal.SIGKILL)
        wait_until(
            lambda: not [child for child in children if is_alive(child.pid)], what="a killed tree ends"
        )

    def kill_host(self, name: str) -> None:
        """Kill everything of a host, as when its power fails."""
        for host, role in [key for key in self._runs if key[0] == name]:
            self.kill_role(host, role)

    def close(self) -> None:
        """Stop whatever still runs, hosts' own log agents last."""
        for child in self._known_children():
            if is_alive(child.pid):
                child.signal(signal.SIGCONT)
        running = [process for process in self._runs.values() if process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            process.wait(STOP_SECONDS)
        self._runs.clear()

    # ---- what it says about itself

    @property
    def endpoints(self) -> dict[str, Any]:
        """Return what endpoints.json says of a fleet on one machine."""
        primary = self._leading[0]
        mirrors = [host for host in self.hosts if "mirror" in host.roles]
        return {
            "ssh": {
                "host": primary.address,
                "port": primary.ssh_port,
                "known_hosts": str(self.directory / "account" / "known_hosts"),
            },
            "https": f"https://{mirrors[0].address}:{mirrors[0].https_port}",
            "mirrors": [{"name": m.name, "url": f"https://{m.address}:{m.https_port}"} for m in mirrors],
            "ca_file": str(self.directory / "keys" / "ca.pem"),
            "account": ACCOUNT,
            "key_file": str(self.directory / "account" / "id_ed25519"),
            "processes": [entry for host in self.hosts for entry in self._processes(host)],
        }

    @property
    def _leading(self) -> list[TestHost]:
        return [host for host in self.hosts if {"primary", "standby"} & set(host.roles)]

    def _processes(self, host: TestHost) -> Iterable[dict[str, Any]]:
        for role in host.runs:
            yield from self._role_processes(host.name, role)

    def _role_processes(self, name: str, role: str) -> list[dict[str, Any]]:
        path = self.directory / "run" / name / f"{role}.json"
        entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        return entries

    def _known_children(self) -> list[Child]:
        return self.children()

    def children_of(self, name: str, role: str) -> list[Child]:
        """Return the processes of one tree."""
        return [Child(**entry) for entry in self._role_processes(name, role)]

    def host(self, name: str) -> TestHost:
        """Return a host by its name."""
        [found] = [host for host in self.hosts if host.name == name]
        return found

    def admin(self, name: str, path: str) -> tuple[int, str]:
        """Ask a host's admin listener; status 0 when it does not answer."""
        host = self.host(name)
        url = f"http://{host.address}:{host.admin_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=_ADMIN_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def is_serving(self, name: str) -> bool:
        """Tell whether the load balancer would send readers to a mirror."""
        context = ssl.create_default_context(cafile=self.ca_file)
        try:
            url = self.mirror_url(name, "-/readyz")
            with urllib.request.urlopen(url, timeout=_ADMIN_SECONDS, context=context) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait_serving(self, *names: str) -> None:
        """Wait until mirrors are in service."""
        self.wait(lambda: all(map(self.is_serving, names)), f"{', '.join(names)} in service", START_SECONDS)

    # ---- commands and clients

    def cli(self, *args: str, timeout_seconds: float = 120.0) -> Outcome:
        """Run an `hgfleet` command on the primary's host."""
        return self.cli_on(self._leading[0].name, *args, timeout_seconds=timeout_seconds)

    def cli_on(
        self, name: str, *args: str, config: Path | None = None, timeout_seconds: float = 120.0
    ) -> Outcome:
        """Run an `hgfleet` command on a host, maybe with another file than the one that is in force."""
        file = config or self.directory / "hgfleet.toml"
        env = self.environment() | {"HGFLEET_CONFIG": str(file), "HGFLEET_HOST": name}
        return run([str(HGFLEET), *args], env=env, timeout_seconds=timeout_seconds)

    def client(self, executable: Path = CURRENT_HG, *config: str) -> HgClient:
        """Return a Mercurial client that trusts the mirrors' certificate."""
        pem = (self.directory / "keys" / "server.pem").read_text()
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        pins = [f"hostsecurity.{host.address}:fingerprints=sha256:{digest}" for host in self.hosts]
        return super().client(executable, *pins, *config)

    def ssh_url_on(self, name: str, path: str) -> str:
        """Return the URL to push to one certain host."""
        host = self.host(name)
        return f"ssh://{ACCOUNT}@{host.address}:{host.ssh_port}/{path}"

    def explain(self) -> str:
        """Return the ends of all logs: what a person would look at first."""
        outputs = sorted(self.directory.parent.glob(f"{self.directory.name}-*.out"))
        logs = sorted(self.directory.glob("logs/*/*.log"))
        return "\n".join(f"==> {path}\n{_tail(path)}" for path in [*outputs, *logs])

    def _run_output(self, name: str, role: str) -> Path:
        return self.directory.parent / f"{self.directory.name}-{name}-{role}.out"

    def _where(self, name: str) -> list[str]:
        return ["--dir", str(self.directory), "--host", name]


# What the rendered units ask for and a process can ask for itself: no new privileges, no memory that is
# written and run. (A kernel before 6.3 does not know the second.)
_CONFINED = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_CERTIFICATE_FILES = ("ca.pem", "ca-key.pem", "server.pem", "server-key.pem")


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-20:])
