"""A fleet of several hosts, each a network namespace: real brokers, slapd, S3, HAProxy, and our daemons.

The same handle as that of a fleet on one machine, so that the same tests run on both. Hosts of the fleet are
`primary`, `mirror1` and so on, and `lb` (HAProxy); what it finds at its site runs on `broker1` and so on and
on `stores`; people and CI machines are on `client`, where tests push from and ask.

Promises: what was started ends with the block, or with the test's process; hosts share the machine's files,
but read nothing of each other's.
Does not: start the surroundings again for each fleet: topics and buckets have the fleet's name before them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from hgfleet.adapters.processes import Child, Program
from hgfleet.adapters.ssh_key_files import ensure_key_pair
from hgfleet.adapters.tls import CertificateFiles, ensure_certificates
from hgfleet.cli.copies import read_copy
from hgfleet.config.layout import HostLayout
from hgfleet.model.ids import HostName, RepoId
from tests.support.clients import Outcome, run
from tests.support.fleet import HGFLEET, Fleet
from tests.support.http_fetch import Reply, fetch
from tests.support.kafka import KafkaCluster, Place
from tests.support.merged_logs import merge
from tests.support.network import DOMAIN, Host, Network
from tests.support.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tests.support.server_process import find
from tests.support.slapd import PEOPLE, Slapd

ACCOUNT = "example@example.org"
PUBLIC_NAME = DOMAIN
SSH_PORT, HTTP_PORT, HTTPS_PORT, MIRROR_PORT, ADMIN_PORT = 22, 80, 443, 8443, 8090
READY_SECONDS = 300.0
LDAP_PORT, S3_PORT = 389, 9000


class Surroundings:
    """What a fleet finds at its site: a network, Kafka, LDAP and S3; for any number of fleets."""

    def __init__(self, directory: Path, *, mirrors: int = 3, brokers: int = 3) -> None:
        self.directory = directory
        self.mirrors = [f"mirror{number}" for number in range(1, mirrors + 1)]
        self.brokers = [f"broker{number}" for number in range(1, brokers + 1)]
        names = ("primary", *self.mirrors, "lb", "client", "stores", *self.brokers)
        self.network = Network(names, directory / "network", site="lb")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.network)
            places = [Place(host.address, host.prefix) for host in map(self.network.host, self.brokers)]
            self.kafka = KafkaCluster(self.directory / "kafka", len(places), places=places)
            stores = self.network.host("stores")
            place: dict[str, Any] = {"address": stores.address, "prefix": stores.prefix}
            self.slapd = Slapd(self.directory / "slapd", port=LDAP_PORT, **place)
            self.s3 = S3Server(self.directory / "s3", port=S3_PORT, **place)
            stack.callback(self.kafka.stop)
            stack.callback(self.slapd.stop)
            stack.callback(self.s3.stop)
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                starts = [pool.submit(part.start) for part in (self.kafka, self.slapd, self.s3)]
                for started in starts:
                    started.result()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@dataclass(frozen=True, slots=True)
class Run:
    """One `hgfleet run ROLE` on a host."""

    host: str
    role: str


_numbers = itertools.count()


class HostsFleet(Fleet):
    """One fleet at such a site."""

    def __init__(
        self,
        directory: Path,
        site: Surroundings,
        *,
        name: str,
        config: str = "",
        coordinators: Sequence[str] = ("primary", "mirror1"),
    ) -> None:
        """Prepare a fleet; `name` tells its topics and its bucket from others', `config` adds tables."""
        self.site = site
        self.name = f"{name}{next(_numbers)}"
        self.coordinators = tuple(coordinators)
        super().__init__(directory, mirrors=len(site.mirrors), config=self._config_text(directory, config))
        self._children: dict[Run | str, Child] = {}
        self._files = CertificateFiles(
            *(directory / f"keys/{part}.pem" for part in ("ca", "ca-key", "server", "server-key"))
        )
        self._key_file = directory / "account" / "id_ed25519"

    # ---- life

    def start(self) -> Self:
        """Start everything on all hosts at once and wait until the fleet serves."""
        self._make_files()
        self.site.s3.make_bucket(self.name)
        self._create_log()
        for each in self.runs():
            self.start_run(each)
        self.start_balancer()
        self.wait(self._is_serving, "every mirror serves and the primary accepts", READY_SECONDS)
        return self

    def _create_log(self) -> None:
        self.cli("log", "create").ok()

    def runs(self) -> list[Run]:
        """Return what runs where; the coordinator on two hosts."""
        mirrors = [Run(name, role) for name in self.site.mirrors for role in ("mirror", "web")]
        coordinators = [Run(name, "coordinator") for name in self.coordinators]
        return [Run("primary", "primary"), *mirrors, *coordinators]

    def start_run(self, each: Run) -> None:
        """Start one role on its host; one that runs is left alone."""
        if (running := self._children.get(each)) is not None and running.exit_status() is None:
            return
        arguments = (str(HGFLEET), "run", each.role, "--host", each.host)
        self._children[each] = self._start(each.host, f"{each.host}-{each.role}", arguments)

    def start_host(self, name: str) -> None:
        """Start everything that belongs on a host."""
        for each in self.runs():
            if each.host == name:
                self.start_run(each)

    def kill_host(self, name: str) -> None:
        """Take a host's power away."""
        self.host(name).kill_all()

    def stop_run(self, each: Run) -> int:
        """Stop one role as its service manager does; return the exit status."""
        return self._children.pop(each).stop(60)

    def start_balancer(self) -> None:
        """Start HAProxy with the configuration that is rendered for its host."""
        (self.directory / "run" / "lb").mkdir(parents=True, exist_ok=True)
        rendered = self.directory / "haproxy.cfg"
        rendered.write_text(self.cli_on("lb", "render", "haproxy").ok().out)
        self._children["lb"] = self._start("lb", "lb", ("haproxy", "-W", "-f", str(rendered)))

    def close(self) -> None:
        """End everything at once: what it has written is for looking at only."""
        for name in ("lb", "primary", *self.site.mirrors):
            self.host(name).kill_all()
        for child in self._children.values():
            child.close()
        self._children.clear()

    def host(self, name: str) -> Host:
        """Return a host of the network."""
        return self.site.network.host(name)

    def _start(self, host: str, name: str, arguments: Sequence[str]) -> Child:
        (self.directory / "logs").mkdir(exist_ok=True)
        with (self.directory / "logs" / f"{name}.out").open("ab") as output:
            environment = self._cli_environment()
            return self.host(host).start(
                Program(tuple(arguments), environment=environment, stdout=output, stderr=output)
            )

    def _is_serving(self) -> bool:
        ended = [key for key, child in self._children.items() if child.exit_status() is not None]
        assert not ended, f"{ended} ended: {self.explain()}"
        try:
            ready = [self.fetch(self.mirror_url(name, "-/readyz")).status for name in self.mirror_names()]
            through = self.fetch(self.https_url("")).status
            leads = self.fetch(f"{self.endpoints['admin']}/-/readyz").status
        except OSError:
            return False
        return {*ready, through, leads} == {200} and self.ssh_banner().startswith(b"SSH-")

    def ssh_banner(self) -> bytes:
        """Return how the SSH front that the load balancer leads to greets; b"" when none does."""
        try:
            with self.connect(PUBLIC_NAME, SSH_PORT) as connection:
                return connection.recv(64)
        except OSError:
            return b""

    # ---- files of the site

    def _make_files(self) -> None:
        names = [DOMAIN, *(f"{name}.{DOMAIN}" for name in self.site.mirrors)]
        for directory in ("keys", "account"):
            (self.directory / directory).mkdir(mode=0o700, exist_ok=True)
        ensure_certificates(self._files, names)
        both = self._files.certificate.read_bytes() + self._files.key.read_bytes()
        (self.directory / "keys/public.pem").write_bytes(both)
        host_key = ensure_key_pair(self.directory / "keys/ssh_host_ed25519", "host")
        (self.directory / "account/known_hosts").write_text(f"{PUBLIC_NAME} {host_key}\n")
        own_key = ensure_key_pair(self._key_file, ACCOUNT)
        groups = ("creators", "developers")
        if self.site.slapd.search(PEOPLE, f"(uid={ACCOUNT})", "uid"):  # of a fleet before this one
            self.site.slapd.replace(ACCOUNT, "sshPublicKey", [own_key])
        else:
            self.site.slapd.add_account(ACCOUNT, groups=groups, keys=[own_key])
        self._write_credentials()

    def _write_credentials(self) -> None:
        text = f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        path = self.directory / "s3-credentials"
        path.write_text(text)
        path.chmod(0o600)

    def _config_text(self, directory: Path, further: str) -> str:
        kafka = self.site.kafka
        copies = min(3, len(kafka.brokers))
        tables = [
            f'[site]\nurl = "https://{PUBLIC_NAME}"',
            '[log]\nkind = "kafka"',
            f"[kafka]\nbrokers = {json.dumps(kafka.bootstrap.split(','))}\n"
            f'topic_prefix = "{self.name}."\nreplication_factor = {copies}\nmin_isr = {max(1, copies - 1)}',
            '[blobs]\nkind = "s3"',
            f'[s3]\nbucket = "{self.name}"\nendpoint = "{self.site.s3.endpoint}"\nregion = "{REGION}"\n'
            f'addressing = "path"\ncredentials_file = "{directory / "s3-credentials"}"',
            self.site.slapd.config_text().rstrip(),
            f'[ssh]\nport = {SSH_PORT}\nhost_key = "keys/ssh_host_ed25519"',
            f"[http]\nhttp_port = {HTTP_PORT}\nhttps_port = {HTTPS_PORT}\n"
            'certificate = "keys/server.pem"\nkey = "keys/server-key.pem"\nca_file = "keys/ca.pem"',
            '[proxy]\ncertificate = "keys/public.pem"',
            f"[admin]\nport = {ADMIN_PORT}",
            *self._host_tables(),
            further.strip(),
        ]
        return "\n\n".join([*tables, ""])

    def _host_tables(self) -> Iterator[str]:
        for name in ("primary", *self.site.mirrors, "lb"):
            role = {"primary": "primary", "lb": "balancer"}.get(name, "mirror")
            roles = [role, *(["coordinator"] if name in self.coordinators else [])]
            port = f"\nhttps_port = {MIRROR_PORT}" if role == "mirror" else ""
            address = self.host(name).address
            yield f'[[hosts]]\nname = "{name}"\naddress = "{address}"\nroles = {json.dumps(roles)}{port}'

    # ---- what it says about itself

    @property
    def endpoints(self) -> dict[str, Any]:
        """Return where everything is, as `hgfleet up` would say it."""
        return {
            "ssh": {
                "host": PUBLIC_NAME,
                "port": SSH_PORT,
                "known_hosts": str(self.directory / "account/known_hosts"),
            },
            "http": f"http://{PUBLIC_NAME}",
            "https": f"https://{PUBLIC_NAME}",
            "admin": f"http://primary.{DOMAIN}:{ADMIN_PORT}",
            "mirrors": [
                {"name": name, "url": f"https://{name}.{DOMAIN}:{MIRROR_PORT}"} for name in self.site.mirrors
            ],
            "ca_file": str(self._files.ca),
            "account": ACCOUNT,
            "key_file": str(self._key_file),
            "processes": self._processes(),
        }

    def _processes(self) -> list[dict[str, Any]]:
        files = [self.directory / "run" / each.host / f"{each.role}.json" for each in self.runs()]
        return [entry for file in files if file.exists() for entry in json.loads(file.read_text())]

    def show(self, path: str) -> dict[str, Any] | None:
        """Return what `repo show` says on the primary, and the other hosts' copies from their files."""
        shown = super().show(path)
        if shown is None:
            return None
        for name in self.site.mirrors:
            layout = HostLayout(HostName(name), self.directory / "hosts" / name)
            copy = read_copy(layout, RepoId(shown["repository"]), is_primary=False)
            shown["copies"].append(asdict(copy))
        return shown

    def explain(self) -> str:
        """Return the ends of all hosts' logs by time, and what else was printed."""
        printed = [f"==> {path.name}\n{_tail(path)}" for path in sorted(self.directory.glob("logs/*.out"))]
        merged = merge(self.directory.glob("logs/*/*.log"))
        return "\n".join([*printed, "==> all hosts, by time", merged])

    # ---- where commands and clients run

    def environment(self) -> dict[str, str]:
        """Return the environment of everything: programs may lie below .tools."""
        return super().environment() | {"PATH": os.environ["PATH"]}

    def operator(self) -> tuple[str, ...]:
        """Commands run on the primary."""
        return (*self.host("primary").prefix, find("env"), "HGFLEET_HOST=primary")

    def cli_on(self, host: str, *args: str) -> Outcome:
        """Run an `hgfleet` command on a host."""
        argv = [*self.host(host).prefix, str(HGFLEET), *args]
        return run(argv, env=self._cli_environment() | {"HGFLEET_HOST": host})

    def customer(self, directory: Path | None = None) -> tuple[str, ...]:
        """People and CI machines are on a host of their own."""
        return self.host("client").prefix_in(directory or Path.cwd())

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect as they do."""
        return self.host("client").connect(host, port)

    def fetch_from(self, host: Host, url: str) -> Reply:
        """Ask a URL from another host."""
        return fetch(host.connect, url, self.ca_file, headers={})

    def start_on(self, host: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program on a host and return at once; the caller ends it."""
        argv = [*self.host(host).prefix, *arguments]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=self.environment())


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


assert sys.platform == "linux", "network namespaces are Linux's"
