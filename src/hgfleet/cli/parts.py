"""Opens the parts that the configuration names: replication log, blob store, directory of accounts.

Promises: the one place that turns a `kind` of the configuration into an adapter; an adapter is imported only
by a process that uses it.
Does not: close what it opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from hgfleet.config.schema import FleetConfig
from hgfleet.ports.blob_store import BlobStore
from hgfleet.ports.directory import Directory
from hgfleet.ports.replication_log import ReplicationLog


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log, and the id that tells it from every other log."""

    log: ReplicationLog
    log_id: str


def open_log(config: FleetConfig) -> OpenLog:
    """Open the replication log, after making an embedded one that is not there. Raises ConfigError."""
    from hgfleet.adapters.sqlite_log import open_or_create_sqlite_log

    log = open_or_create_sqlite_log(config.log.path, config.log.partitions)
    return OpenLog(log, log.log_id)


def open_blobs(config: FleetConfig) -> BlobStore:
    """Open the blob store."""
    from hgfleet.adapters.directory_blobs import DirectoryBlobs

    return DirectoryBlobs(config.blobs.path)


def open_directory(config: FleetConfig) -> Directory:
    """Open the directory of accounts."""
    from hgfleet.adapters.toml_directory import TomlDirectory

    return TomlDirectory(config.directory.path)
