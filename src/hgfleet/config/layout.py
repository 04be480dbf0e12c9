"""Where everything of a fleet lies: the one place that puts path names together.

The files of a host are a contract between processes: docs/design/local-protocols.md.

Promises: pure; the same configuration and host give the same paths in every process; in a fleet of several
hosts no path of one is used by another, so that they may share a file of configuration and even a disk.
Does not: create or look at anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hgfleet.config.hosts import Host, find_host
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import InvariantError, RejectedError
from hgfleet.model.ids import HostName, RepoId

CONFIG_NAME = "hgfleet.toml"
PRIMARY = HostName("primary")


@dataclass(frozen=True, slots=True)
class HostLayout:
    """The files of one host."""

    name: HostName
    directory: Path

    @property
    def repositories(self) -> Path:
        """One directory per repository id."""
        return self.directory / "repos"

    @property
    def spool(self) -> Path:
        """Payloads on their way to or from the blob store."""
        return self.directory / "spool"

    @property
    def catalogue(self) -> Path:
        """What the mirror's web workers serve."""
        return self.directory / "catalogue.sqlite"

    @property
    def serving(self) -> Path:
        """The mirror's stage and lease."""
        return self.directory / "serving.json"

    @property
    def demand(self) -> Path:
        """What this host counted of clones within a day."""
        return self.directory / "demand.sqlite"

    @property
    def log_index(self) -> Path:
        """What the host's log agent knows of the log; derived and rebuildable."""
        return self.directory / "log-index.sqlite"

    @property
    def accounts_cache(self) -> Path:
        """Accounts as LDAP last gave them, for its outages."""
        return self.directory / "accounts.sqlite"

    def repository(self, repository: RepoId) -> Path:
        """Return the link to the generation in use of a repository."""
        return self.repositories / repository / "current"


@dataclass(frozen=True, slots=True)
class FleetLayout:
    """The files that one machine has of a fleet: all of it, or those of the host `host` of `[[hosts]]`."""

    config: FleetConfig
    own: HostName | None = None

    def __post_init__(self) -> None:
        if (self.own is None) == bool(self.config.hosts):
            raise InvariantError("layout.host", "a layout needs its host exactly where hosts are named")

    @property
    def own_host(self) -> Host | None:
        """What `[[hosts]]` says of this host; None where the fleet is on one machine."""
        return find_host(self.config, self.own) if self.own else None

    @property
    def run_link(self) -> Path:
        """Where the sockets are looked for: a directory, or a link to one with a shorter name."""
        run = self.config.site.run_directory
        return run / self.own if self.own else run

    @property
    def run(self) -> Path:
        """Sockets; there may be a link here, as a socket's path has room for 107 bytes only."""
        return self.run_link.resolve()

    @property
    def logs(self) -> Path:
        """What this machine's processes write about themselves."""
        return self.config.logs.path / self.own if self.own else self.config.logs.path

    @property
    def agent_socket(self) -> Path:
        """Where the log agent listens."""
        return self.run / "log-agent.sock"

    @property
    def sessions_socket(self) -> Path:
        """Where the session server listens."""
        return self.run / "sessions.sock"

    @property
    def rights_socket(self) -> Path:
        """Where the SSH front tells sessions what an account may do now."""
        return self.run / "ssh-rights.sock"

    def clones_socket(self, host: HostName) -> Path:
        """Return where a mirror's process for full clones listens."""
        return self.run / f"clones-{host}.sock"

    @property
    def gate_socket(self) -> Path:
        """Where sshd's forced command asks the reception."""
        return self.run / "ssh-gate.sock"

    @property
    def keys_socket(self) -> Path:
        """Where sshd's look-up of keys asks the reception."""
        return self.config.openssh.lookup_socket or self.run / "ssh-keys.sock"

    @property
    def sshd_config(self) -> Path:
        """The configuration of an sshd that we start ourselves."""
        return self.run / "sshd_config"

    @property
    def directory_status(self) -> Path:
        """What the SSH front tells about the directory of accounts, for metrics."""
        return self.run / "directory.json"

    @property
    def bundler_status(self) -> Path:
        """What the bundler tells about itself, for metrics."""
        return self.run / "bundler-status.json"

    @property
    def effective_config(self) -> Path:
        """What the running processes read: the file with this run's options in it."""
        return self.run / "effective.toml"

    def role_config(self, role: str) -> Path:
        """Return the configuration that the processes of one `hgfleet run` read."""
        return self.run / f"{role}.toml"

    def role_processes(self, role: str) -> Path:
        """Return the file that lists the processes of one `hgfleet run`."""
        return self.run / f"{role}.json"

    def role_lock(self, role: str) -> Path:
        """Return the file that the one `hgfleet run` of a role has locked."""
        return self.run / f"{role}.lock"

    @property
    def hgrc(self) -> Path:
        """The only Mercurial configuration that sessions read."""
        return self.run / "sessions.hgrc"

    @property
    def haproxy(self) -> Path:
        """HAProxy's configuration."""
        return self.run / "haproxy.cfg"

    @property
    def haproxy_socket(self) -> Path:
        """HAProxy's admin socket; short, for HAProxy makes it under a longer name first."""
        return self.run / "lb.sock"

    @property
    def haproxy_certificate(self) -> Path:
        """Certificate chain and key in one file, as HAProxy wants them."""
        return self.run / "haproxy.pem"

    @property
    def agent_host(self) -> HostLayout:
        """The host that this machine's log agent belongs to."""
        return self.host(self.own or PRIMARY)

    @property
    def primary(self) -> HostLayout:
        """The files that sessions write. Raises RejectedError `host.not-leading` on a host without any."""
        if self.own_host and not self.own_host.is_leading:
            raise RejectedError(
                "host.not-leading",
                "this host never accepts pushes",
                hint="do it on the primary or a standby",
                host=self.own,
            )
        return self.agent_host

    @property
    def mirrors(self) -> list[HostLayout]:
        """The files of each mirror that is here, in order."""
        if self.own_host is None:
            return [self.host(HostName(f"mirror{n}")) for n in range(1, self.config.mirrors.count + 1)]
        return [self.agent_host] if self.own_host.is_mirror else []

    @property
    def hosts(self) -> list[HostLayout]:
        """The hosts whose files are here."""
        return [self.agent_host] if self.own else [self.agent_host, *self.mirrors]

    def host(self, name: HostName) -> HostLayout:
        """Return one host's files by its name."""
        return HostLayout(name, self.config.site.hosts_directory / name)

    @property
    def audit_file(self) -> Path:
        """One line per session, append-only."""
        return self.logs / "audit.log"
