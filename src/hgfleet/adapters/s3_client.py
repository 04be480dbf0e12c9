"""A client of an S3 API, from options, and what its errors mean.

Promises: any endpoint, path- or virtual-host style; every wait has a time-out; a request is repeated a
bounded number of times here and nowhere above; whatever the SDK raises is told apart by what is wrong.
Does not: know what is stored, or raise a port's errors (s3_blobs, s3_objects, s3_upload).
"""

from __future__ import annotations

import configparser
import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from hgfleet.errors import ConfigError
from hgfleet.model.ids import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# By code where the status says something else: versitygw answers 404 to a key that it does not know.
_FORBIDDEN = frozenset({"InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "XAdminUserNotFound"})
_FORBIDDEN_STATUS = frozenset({401, 403})
_FULL = frozenset({"QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage", "507"})
CHUNK_BYTES = 1024 * 1024
S3_ERRORS = (ClientError, BotoCoreError, HTTPError, OSError)  # whatever calls of the SDK and files raise


class Trouble(Enum):
    """What is wrong when the service, the way to it or a local file fails."""

    MISSING = "missing"  # the object
    NO_BUCKET = "no bucket"
    FULL = "full"
    FORBIDDEN = "forbidden"
    UNREACHABLE = "unreachable"
    UNUSABLE = "unusable"  # it answers, and not as it should
    LOCAL = "local"  # a file on this host


_TROUBLE_BY_CODE = {"NoSuchKey": Trouble.MISSING, "NoSuchBucket": Trouble.NO_BUCKET}


@dataclass(frozen=True, slots=True)
class S3Options:
    """How a bucket is reached; "" or None: the SDK's own default."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    credentials_file: Path | None = None
    ca_file: Path | None = None
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    attempts: int = 4
    part_bytes: int = 8 * 1024 * 1024
    parallel_parts: int = 3


def make_client(options: S3Options) -> S3Client:
    """Return a client for any number of threads; nothing is asked yet. Raises ConfigError."""
    if options.ca_file and not options.ca_file.is_file():
        raise ConfigError("s3.no-ca", "there is no such file of CA certificates", path=str(options.ca_file))
    config = Config(
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        s3={"addressing_style": options.addressing},
        # We name the checksums that we want, and compare digests ourselves.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=32,
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=options.endpoint or None,
            region_name=options.region or None,
            verify=str(options.ca_file) if options.ca_file else None,
            config=config,
            **read_credentials(options.credentials_file),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigError("s3.invalid", "the S3 settings cannot be used", reason=str(error)) from error


def read_credentials(path: Path | None) -> dict[str, Any]:
    """Read [default] of a file in the form of ~/.aws/credentials; None leaves it to the SDK's own chain.

    Raises ConfigError.
    """
    if path is None:
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text())
        section = parser["default"]
        names = ("aws_access_key_id", "aws_secret_access_key")
        return {name: section[name] for name in names} | {
            "aws_session_token": section.get("aws_session_token") or None
        }
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        raise ConfigError(
            "s3.credentials",
            "the file of S3 credentials cannot be used",
            hint="it needs [default] with aws_access_key_id and aws_secret_access_key",
            path=str(path),
            reason=error.strerror if isinstance(error, OSError) else type(error).__name__,
        ) from error


def error_code(error: ClientError) -> str:
    """Return the service's own code, or the HTTP status where it gave none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def diagnose(error: Exception) -> tuple[Trouble, str]:
    """Say what an exception of S3_ERRORS means, and the reason in one line."""
    if isinstance(error, ClientError):
        return _of_service(error), _short(error)
    if isinstance(error, NoCredentialsError):
        return Trouble.FORBIDDEN, "there are no credentials"
    if isinstance(error, BotoCoreError | HTTPError):
        return Trouble.UNREACHABLE, _short(error)
    return Trouble.LOCAL, getattr(error, "strerror", None) or str(error)


def _of_service(error: ClientError) -> Trouble:
    code = error_code(error)
    if code in _TROUBLE_BY_CODE:
        return _TROUBLE_BY_CODE[code]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _FULL:
        return Trouble.FULL
    return Trouble.FORBIDDEN if code in _FORBIDDEN or status in _FORBIDDEN_STATUS else Trouble.UNUSABLE


def head(client: S3Client, options: S3Options, key: str) -> Any:
    """Return what is known of an object, None when it is not there. A bucket that is gone is an error."""
    try:
        return client.head_object(Bucket=options.bucket, Key=key)
    except ClientError as error:
        if error_code(error) != "404":
            raise
    # A HEAD is answered 404 for a missing bucket, too, and says no more: another request does.
    client.list_objects_v2(Bucket=options.bucket, Prefix=key, MaxKeys=1)
    return None


def read_digest(client: S3Client, options: S3Options, key: str) -> tuple[int, Digest]:
    """Read the object to its end; return its size and SHA-256."""
    answer = client.get_object(Bucket=options.bucket, Key=key)
    total, size_bytes = hashlib.sha256(), 0
    for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
        total.update(chunk)
        size_bytes += len(chunk)
    return size_bytes, Digest(total.hexdigest())


def _short(error: Exception) -> str:
    """Return the reason without the trail of what was tried in between."""
    return str(error).splitlines()[0][:300]
