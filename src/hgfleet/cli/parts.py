"""Opens the parts that the configuration names: replication log, blob store, accounts, SSH server.

Promises: the one place that turns a `kind` of the configuration into an adapter; an adapter is imported only
by a process that uses it.
Does not: close what it opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hgfleet.cli.addresses import ssh_listener, ssh_proxies
from hgfleet.config.layout import FleetLayout
from hgfleet.config.schema import FleetConfig
from hgfleet.model.retention import RetentionPolicy, SnapshotPolicy
from hgfleet.ports.blob_store import BlobStore
from hgfleet.ports.directory import Directory
from hgfleet.ports.progress import ProgressBoard
from hgfleet.ports.replication_log import ReplicationLog

if TYPE_CHECKING:
    from hgfleet.adapters.asyncssh_front import FrontOptions
    from hgfleet.adapters.ldap_connections import LdapOptions
    from hgfleet.adapters.location_files import LocationOptions
    from hgfleet.adapters.openssh_front import OpenSshOptions
    from hgfleet.adapters.s3_client import S3Options
    from hgfleet.adapters.ssh_entrance import EntranceOptions


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log, and the id that tells it from every other log."""

    log: ReplicationLog
    log_id: str
    progress: ProgressBoard | None = None

    def close(self) -> None:
        """Release both."""
        self.log.close()
        if self.progress is not None:
            self.progress.close()


def open_log(config: FleetConfig) -> OpenLog:
    """Open the replication log, after making an embedded one that is not there.

    Raises ConfigError; TransientError where it lies elsewhere and does not answer.
    """
    if config.log.kind == "kafka":
        from hgfleet.adapters.kafka_log import KafkaLog
        from hgfleet.adapters.kafka_progress import KafkaProgress
        from hgfleet.adapters.kafka_settings import kafka_settings

        settings = kafka_settings(config.kafka)
        kafka_log = KafkaLog(settings)
        return OpenLog(kafka_log, kafka_log.log_id, KafkaProgress(settings))
    from hgfleet.adapters.sqlite_log import open_or_create_sqlite_log

    log = open_or_create_sqlite_log(config.log.path, config.log.partitions)
    return OpenLog(log, log.log_id)


def snapshot_policy(config: FleetConfig) -> SnapshotPolicy:
    """Return when a repository needs its next snapshot."""
    snapshots = config.snapshots
    return SnapshotPolicy(config.retention.period_seconds, snapshots.max_messages, snapshots.max_log_bytes)


def retention_policy(config: FleetConfig) -> RetentionPolicy:
    """Return what log and blob store keep."""
    retention = config.retention
    return RetentionPolicy(
        retention.period_seconds, retention.check_interval_seconds, retention.blob_grace_seconds
    )


def open_blobs(config: FleetConfig) -> BlobStore:
    """Open the blob store; nothing is asked yet. Raises ConfigError."""
    if config.blobs.kind == "s3":
        from hgfleet.adapters.s3_blobs import S3Blobs

        return S3Blobs(s3_options(config))
    from hgfleet.adapters.directory_blobs import DirectoryBlobs

    return DirectoryBlobs(config.blobs.path)


def location_options(config: FleetConfig) -> LocationOptions:
    """Return how the places of clients are told from their addresses."""
    from hgfleet.adapters.location_files import LocationOptions

    places = [
        (network, *location.attribute.partition("=")[::2])
        for location in config.locations
        for network in location.networks
    ]
    files = [
        (str(location.file), location.provider, location.attribute)
        for location in config.locations
        if location.file
    ]
    bundles = config.bundles
    return LocationOptions(
        tuple(places), tuple(files), bundles.fast_networks, bundles.locations_interval_seconds
    )


def s3_options(config: FleetConfig) -> S3Options:
    """Return the S3 settings as their adapter takes them."""
    from hgfleet.adapters.s3_client import S3Options

    return S3Options(**dict(config.s3))


def open_directory(layout: FleetLayout) -> Directory:
    """Open the directory of accounts, for log-ins: it goes on over an outage. Raises ConfigError."""
    from hgfleet.adapters.cached_directory import CachedDirectory, CacheLimits
    from hgfleet.adapters.directory_status import write_directory_status

    config = layout.config
    limits = CacheLimits(config.directory.lookup_timeout_seconds, config.directory.outage_seconds)
    tell = partial(write_directory_status, layout.directory_status)
    if config.directory.kind == "ldap":
        from hgfleet.adapters.account_cache import AccountCache

        cache = AccountCache(layout.primary.accounts_cache)
        return CachedDirectory(open_plain_directory(config), limits, cache, tell)
    return CachedDirectory(open_plain_directory(config), limits, tell=tell)


def open_plain_directory(config: FleetConfig) -> Directory:
    """Open the directory of accounts as it is. Raises ConfigError."""
    if config.directory.kind == "ldap":
        from hgfleet.adapters.ldap_directory import LdapDirectory

        return LdapDirectory(ldap_options(config))
    from hgfleet.adapters.toml_directory import TomlDirectory

    return TomlDirectory(config.directory.path)


def ldap_options(config: FleetConfig) -> LdapOptions:
    """Return the LDAP settings as their adapter takes them."""
    from hgfleet.adapters.ldap_connections import LdapOptions

    return LdapOptions(**dict(config.ldap))


def ssh_server(layout: FleetLayout) -> FrontOptions | OpenSshOptions:
    """Return the options of the SSH server. Raises ConfigError."""
    ssh, listener = layout.config.ssh, ssh_listener(layout)
    if ssh.kind == "openssh":
        from hgfleet.cli.openssh import reception_options

        return reception_options(layout)
    from hgfleet.adapters.asyncssh_front import FrontOptions

    return FrontOptions(
        bind=listener.address,
        port=listener.port,
        host_key=ssh.host_key,
        max_connections=ssh.max_connections,
        login_timeout_seconds=ssh.login_timeout_seconds,
        idle_timeout_seconds=ssh.idle_timeout_seconds,
        entrance=entrance_options(layout.config),
    )


def entrance_options(config: FleetConfig) -> EntranceOptions:
    """Return whose PROXY headers are believed."""
    from hgfleet.adapters.ssh_entrance import EntranceOptions

    ssh = config.ssh
    return EntranceOptions(
        trusted_proxies=ssh_proxies(config),
        header_timeout_seconds=ssh.proxy_header_timeout_seconds,
        max_connections=ssh.max_connections,
    )
