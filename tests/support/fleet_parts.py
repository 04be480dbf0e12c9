"""Which log and which blob store the processes of a small fleet use: files below its directory, or a site's.

A test that wants Kafka and S3 writes `site.json` there (`use_site`) before anything starts.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hgfleet.adapters.directory_blobs import DirectoryBlobs
from hgfleet.adapters.kafka_log import KafkaLog
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.adapters.s3_blobs import S3Blobs
from hgfleet.adapters.s3_client import S3Options
from hgfleet.adapters.sqlite_log import SqliteLog, open_or_create_sqlite_log

_SITE = "site.json"


def use_site(directory: Path, kafka: KafkaSettings, s3: S3Options) -> None:
    """Have a fleet's processes use these."""
    fields = {"client": dict(kafka.client), "topic_prefix": kafka.topic_prefix}
    (directory / _SITE).write_text(json.dumps({"kafka": fields, "s3": asdict(s3)}, default=str))


def open_log(directory: Path) -> SqliteLog | KafkaLog:
    """Open the fleet's log."""
    site = _read_site(directory)
    if site is None:
        return open_or_create_sqlite_log(directory / "log.sqlite")
    return KafkaLog(KafkaSettings(**site["kafka"], append_seconds=6.0))


def open_blobs(directory: Path) -> DirectoryBlobs | S3Blobs:
    """Open the fleet's blob store."""
    site = _read_site(directory)
    if site is None:
        return DirectoryBlobs(directory / "blobs")
    fields = site["s3"]
    paths = {name: Path(fields[name]) for name in ("credentials_file", "ca_file") if fields.get(name)}
    return S3Blobs(S3Options(**fields | paths))


def _read_site(directory: Path) -> dict[str, dict[str, Any]] | None:
    path = directory / _SITE
    if not path.exists():
        return None
    site: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return site
