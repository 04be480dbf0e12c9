"""The table [s3]: which bucket is the blob store, and how it is reached.

Promises: a URL and a prefix have a form that can be right.
Does not: ask the service whether they are (`hgfleet doctor` does).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hgfleet.config.section import Count, Section, setting
from hgfleet.config.units import Duration, OptionalFilePath, Size


class S3Section(Section):
    """The blob store in a bucket of any S3-compatible service, for blobs.kind = "s3"."""

    bucket: str = setting("", "the bucket; it must be there")
    prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9._/-]*/)?$")] = setting(
        "", 'what every key begins with, such as "hgfleet/"'
    )
    endpoint: Annotated[str, Field(pattern=r"^(https?://[^/]+)?/?$")] = setting(
        "", 'URL of the service; "": that of AWS in the region'
    )
    region: str = setting("", 'region; "": what the environment says')
    addressing: Literal["auto", "path", "virtual"] = setting(
        "auto", "bucket in the path, in the host's name, or whatever fits the endpoint"
    )
    credentials_file: OptionalFilePath = setting(
        "", '[default] in the form of ~/.aws/credentials; "": environment, instance role and so on'
    )
    ca_file: OptionalFilePath = setting("", 'CA certificates of the endpoint; "": the public ones')
    connect_timeout_seconds: Duration = setting("5s", "for a connection", key="connect_timeout")
    read_timeout_seconds: Duration = setting(
        "30s", "for each answer, and each pause in one", key="read_timeout"
    )
    attempts: Count = setting(4, "how often a request is tried altogether, with growing pauses")
    part_bytes: Annotated[Size, Field(ge=5 * 1024**2)] = setting(
        "8MiB", "a larger blob is sent in parts of this size", key="part"
    )
    parallel_parts: Count = setting(3, "parts of one blob that are sent at once")
