"""Every setting of a fleet: its name, type, default and meaning, in one place.

`hgfleet config init` writes the file from here and docs/reference/config.md is generated from here, so no key
can exist without a comment. An attribute names its unit (`lease_seconds`); the key in the file does not, as
its value does (`lease = "10s"`).

Promises: a FleetConfig is complete, typed and frozen, and its values fit each other (`find_conflicts`).
Does not: read files or the environment, or know what lies where in a fleet's directory (config.layout).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from hgfleet.config.bundles_table import (
    OWN_STORE,
    BundlesSection,
    BundleStoreSection,
    find_store_conflicts,
    own_store,
)
from hgfleet.config.host_table import HostSection
from hgfleet.config.kafka_table import KafkaSection, find_kafka_conflicts
from hgfleet.config.ldap_table import LdapSection, find_ldap_conflicts
from hgfleet.config.location_table import LocationSection, find_location_conflicts
from hgfleet.config.retention_table import RetentionSection, SnapshotsSection, find_retention_conflicts
from hgfleet.config.s3_table import S3Section
from hgfleet.config.section import Address, Count, Networks, Port, Ports, Section, setting
from hgfleet.config.units import Duration, FilePath, Names, OptionalFilePath, Size

MAX_MIRRORS = 64


class SiteSection(Section):
    """The fleet as a whole."""

    name: str = setting("hgfleet", "what the pages and the banner call this fleet")
    url: str = setting("", 'base URL that clients use; "" is https://localhost:<http.https_port>')
    run_directory: FilePath = setting("run", "sockets and what is made anew at each start")
    hosts_directory: FilePath = setting("hosts", "repositories, one directory per host")


class LogSection(Section):
    """The replication log."""

    kind: Literal["sqlite", "kafka"] = setting(
        "sqlite", "which adapter: sqlite (embedded), or kafka (its topics: `hgfleet log create`)"
    )
    path: FilePath = setting("log/log.sqlite", "the embedded log's file")
    partitions: Count = setting(8, "partitions of pushdata; fixed when the log is made")
    inline_limit_bytes: Size = setting(
        "256KiB", "a larger payload goes to the blob store", key="inline_limit"
    )


class BlobsSection(Section):
    """The blob store: large payloads and snapshots."""

    kind: Literal["directory", "s3"] = setting("directory", "which adapter: directory, or s3 (see [s3])")
    path: FilePath = setting("blobs", "the store's directory")


class DirectorySection(Section):
    """The directory of accounts: SSH keys and groups."""

    kind: Literal["toml", "ldap"] = setting(
        "toml", "which adapter: toml (a file managed by `hgfleet user`), or ldap (see [ldap])"
    )
    path: FilePath = setting("directory.toml", "the accounts' file")
    lookup_timeout_seconds: Duration = setting(
        "5s", "how long one look-up may take altogether", key="lookup_timeout"
    )
    outage_seconds: Duration = setting(
        "1h",
        "while it cannot be asked, what it said less than this ago still holds, revoked or not",
        key="outage",
    )


class AccessSection(Section):
    """Who may do what."""

    creators: Names = setting(["creators"], "groups whose members may create repositories over SSH")
    default_writers: Names = setting(["developers"], "writers of a repository created without --writers")
    service_accounts: Names = setting([], "accounts that may push on behalf of a person")


class SshSection(Section):
    """The SSH server in front of the primary."""

    kind: Literal["embedded", "openssh"] = setting(
        "embedded", "which server: embedded, or openssh (sshd with the file of `hgfleet render sshd`)"
    )
    bind: Address = setting("127.0.0.1", "address to listen on")
    port: Port = setting(2222, "port to listen on")
    host_key: FilePath = setting("keys/ssh_host_ed25519", "private host key")
    max_connections: Count = setting(200, "connections at once; more are closed at once")
    max_sessions: Count = setting(64, "sessions at once; more are told to come back")
    max_sessions_per_account: Count = setting(16, "sessions of one account at once")
    login_timeout_seconds: Duration = setting(
        "30s", "a client that has not logged in by then is cut off", key="login_timeout"
    )
    idle_timeout_seconds: Duration = setting(
        "5m", "a client that answers no keep-alive for so long is cut off", key="idle_timeout"
    )
    account_check_seconds: Duration = setting(
        "30s",
        "how often the accounts of open sessions are looked up; those of a disabled one are hung up",
        key="account_check",
    )
    trusted_proxies: Networks = setting(
        [], "networks of load balancers: their connections must start with a PROXY header (v1 or v2)"
    )
    proxy_header_timeout_seconds: Duration = setting(
        "5s", "a trusted proxy's connection without its header by then is closed", key="proxy_header_timeout"
    )


class OpenSshSection(Section):
    """OpenSSH as the SSH server; used with ssh.kind = "openssh" only."""

    program: str = setting("sshd", "sshd, by path or found on PATH; started only behind ssh.trusted_proxies")
    python: str = setting(
        "",
        "a Python since 3.9 in a path that only root can change, which runs sshd's look-up and gate; "
        '"": our own if it is in such a path, else /usr/bin/python3',
    )
    lookup_user: str = setting(
        "", 'the user whom sshd runs the look-up of keys as; "": the one that hgfleet runs as'
    )
    lookup_group: str = setting("", "a group of lookup_user's that the socket for it is given to")
    lookup_socket: OptionalFilePath = setting(
        "", 'that socket, in a directory that lookup_user can enter; "": in site.run_directory'
    )


class HttpSection(Section):
    """HTTPS for readers, and the plain port that redirects to it."""

    bind: Address = setting("127.0.0.1", "address to listen on")
    http_port: Port = setting(8080, "plain port: answers 301 to everything")
    https_port: Port = setting(8443, "HTTPS port")
    certificate: FilePath = setting("keys/server.pem", "certificate chain")
    key: FilePath = setting("keys/server-key.pem", "private key of the certificate")
    ca_file: OptionalFilePath = setting(
        "keys/ca.pem", 'certificate of the CA that clients need; "": a public one'
    )
    workers: Count = setting(2, "web worker processes of one mirror")
    threads: Count = setting(8, "threads of one web worker; a clone holds one all the time")
    full_clones: Count = setting(
        8, "full clones at once of one mirror, at most half of its threads; more are told to come again later"
    )
    clone_workers: Count = setting(1, "processes of one mirror that make full clones, at low priority")
    graceful_timeout_seconds: Duration = setting(
        "30s", "how long requests in flight may go on at a stop", key="graceful_timeout"
    )
    trusted_proxies: Networks = setting(
        [], "networks whose forwarding headers are believed; HAProxy's own is added by itself"
    )


class ProxySection(Section):
    """HAProxy in front of more than one mirror."""

    program: str = setting("haproxy", "program, by path or found on PATH")
    check_interval_seconds: Duration = setting(
        "1s", "how often a host's readiness is asked; also how long a check may take", key="check_interval"
    )
    check_timeout_seconds: Duration = setting("1s", "how long a check may take", key="check_timeout")
    fall: Count = setting(2, "failed checks in a row that take a mirror out")
    max_connections: Count = setting(400, "connections at once")
    certificate: OptionalFilePath = setting(
        "",
        'chain and key in one file, for clients; "" on one machine: made from [http]; needed with a balancer',
    )
    mirror_certificate_name: str = setting(
        "",
        'name in the certificate of the mirrors; "" is localhost on one machine, the host of site.url else',
    )

    @property
    def detection_seconds(self) -> float:
        """The longest time for which requests still go to a mirror that is not ready any more."""
        return self.fall * (self.check_interval_seconds + self.check_timeout_seconds)


class AdminSection(Section):
    """Status and metrics; never reachable through the HTTPS port."""

    bind: Address = setting("127.0.0.1", "address to listen on")
    port: Port = setting(8090, "port to listen on")


class MirrorsSection(Section):
    """The mirrors that `hgfleet up` runs."""

    count: Annotated[int, Field(ge=1, le=MAX_MIRRORS)] = setting(1, "how many")
    ports: Ports = setting([], "each mirror's own port behind HAProxy; [] takes free ones")
    apply_workers: Count = setting(2, "worker processes of one applier")


class MembershipSection(Section):
    """Which mirrors are counted."""

    lease_seconds: Duration = setting("10s", "a mirror unheard of for so long is evicted", key="lease")
    self_stale_seconds: Duration = setting(
        "5s", "a mirror whose last acknowledged report is older says it is not ready", key="self_stale"
    )
    floor: Annotated[int, Field(ge=1, le=MAX_MIRRORS)] = setting(
        1, "with fewer counted mirrors nothing new is exposed"
    )


class PushSection(Section):
    """The life of a push."""

    visible_wait_seconds: Duration = setting(
        "2s", "how long a push waits to be visible on all mirrors", key="visible_wait"
    )
    append_deadline_seconds: Duration = setting(
        "10s", "how long an unanswered append is waited for", key="append_deadline"
    )
    lock_timeout_seconds: Duration = setting(
        "30s", "how long a push waits for another one's lock", key="lock_timeout"
    )


class LogsSection(Section):
    """What the processes write about themselves, as JSON lines."""

    path: FilePath = setting("logs", "directory of the log files")
    level: Literal["debug", "info", "warning", "error"] = setting("info", "lowest level that is written")
    file_size_bytes: Size = setting("16MiB", "a file that has grown past this is rotated", key="file_size")
    files_kept: Count = setting(3, "rotated files kept of each")


class TestingSection(Section):
    """For tests only."""

    allow_faults: bool = setting(
        False,
        "honour HGFLEET_FAULTS, the crash points of docs/design/local-protocols.md; "
        "HGFLEET_ALLOW_FAULTS=1 allows them for one run of `hgfleet up`",
    )


class FleetConfig(Section):
    """One fleet's configuration."""

    site: SiteSection
    log: LogSection
    kafka: KafkaSection
    blobs: BlobsSection
    s3: S3Section
    snapshots: SnapshotsSection
    retention: RetentionSection
    bundles: BundlesSection
    directory: DirectorySection
    ldap: LdapSection
    access: AccessSection
    ssh: SshSection
    openssh: OpenSshSection
    http: HttpSection
    proxy: ProxySection
    admin: AdminSection
    mirrors: MirrorsSection
    membership: MembershipSection
    push: PushSection
    logs: LogsSection
    testing: TestingSection
    hosts: tuple[HostSection, ...] = ()
    locations: tuple[LocationSection, ...] = ()
    bundle_stores: dict[str, BundleStoreSection] = Field(default={})  # [bundles.stores.NAME]

    @property
    def mirror_count(self) -> int:
        """How many mirrors the fleet is meant to have."""
        return sum("mirror" in host.roles for host in self.hosts) if self.hosts else self.mirrors.count

    @property
    def stores(self) -> Mapping[str, BundleStoreSection]:
        """The bundle stores; one machine that names none has one of its own."""
        if self.bundle_stores or self.hosts:
            return self.bundle_stores
        return {OWN_STORE: own_store(self.bundles.path)}

    @property
    def base_url(self) -> str:
        """The URL that clients read from, without a slash at its end."""
        return self.site.url.rstrip("/") or f"https://localhost:{self.http.https_port}"


def section_classes() -> dict[str, type[Section]]:
    """Return each table's class by its name, in the file's order."""
    annotations = {name: field.annotation for name, field in FleetConfig.model_fields.items()}
    return {name: kind for name, kind in annotations.items() if isinstance(kind, type)}


def find_conflicts(config: FleetConfig) -> Iterator[str]:
    """Yield every pair of settings that cannot both be right."""
    detection = config.proxy.detection_seconds
    if config.membership.lease_seconds < config.membership.self_stale_seconds + detection:
        yield (
            "membership.lease: must be at least membership.self_stale + "
            f"proxy.fall * (proxy.check_interval + proxy.check_timeout) = "
            f"{config.membership.self_stale_seconds + detection:g}s, or readers may meet an evicted mirror"
        )
    if config.membership.floor > config.mirror_count:
        yield "membership.floor: is above the number of mirrors, so nothing could ever be exposed"
    if config.mirrors.ports and len(config.mirrors.ports) != config.mirrors.count:
        yield "mirrors.ports: must name one port for each of mirrors.count, or none"
    if config.push.append_deadline_seconds >= config.push.lock_timeout_seconds:
        yield "push.append_deadline: must be below push.lock_timeout, or waiting pushes give up first"
    if config.blobs.kind == "s3" and not config.s3.bucket:
        yield 's3.bucket: must be named, as blobs.kind is "s3"'
    if config.log.kind == "kafka":
        yield from find_kafka_conflicts(
            config.kafka, config.log.inline_limit_bytes, config.push.append_deadline_seconds
        )
    if config.directory.kind == "ldap":
        yield from find_ldap_conflicts(config.ldap)
    yield from find_retention_conflicts(
        config.snapshots,
        config.retention,
        config.membership.lease_seconds,
        config.push.append_deadline_seconds,
    )
    yield from find_store_conflicts(config.bundle_stores, config.bundles)
    yield from find_location_conflicts(config.locations)
    yield from _find_shared_ports(config)


def _find_shared_ports(config: FleetConfig) -> Iterator[str]:
    port_by_key = {
        "ssh.port": config.ssh.port,
        "http.http_port": config.http.http_port,
        "http.https_port": config.http.https_port,
        "admin.port": config.admin.port,
    }
    port_by_key |= {f"mirrors.ports[{place}]": port for place, port in enumerate(config.mirrors.ports)}
    for port, uses in Counter(port_by_key.values()).items():
        if port and uses > 1:
            keys = ", ".join(key for key, value in port_by_key.items() if value == port)
            yield f"{keys}: the same port {port}"
