"""A client of an S3 API, from options, and what its errors mean.

Promises: any endpoint, path- or virtual-host style; every wait has a time-out; a request is repeated a
bounded number of times here and nowhere above; whatever the SDK raises leaves as the port's errors, with a
hint that names the setting to look at.
Does not: know what is stored (s3_blobs, s3_upload).
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from hgfleet.errors import ConfigError, FleetError, RejectedError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# By code where the status says something else: versitygw answers 404 to a key that it does not know.
_FORBIDDEN = frozenset({"InvalidAccessKeyId", "ExpiredToken", "InvalidToken", "XAdminUserNotFound"})
_FORBIDDEN_STATUS = frozenset({401, 403})
_FULL = frozenset({"QuotaExceeded", "StorageFull", "XMinioStorageFull", "InsufficientStorage", "507"})
_FORBIDDEN_HINT = "check s3.credentials_file, or the environment's, and what they may do in s3.bucket"
_UNREACHABLE_HINT = "check s3.endpoint, s3.region and s3.ca_file, and that the store runs"


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


@contextmanager
def store_errors(options: S3Options, **context: str) -> Iterator[None]:
    """Turn what the SDK and the local file system say into the port's errors."""
    try:
        yield
    except ClientError as error:
        raise _of_service(error, options, context) from error
    except NoCredentialsError as error:
        raise TransientError(
            "blob.forbidden", "the blob store has no credentials", hint=_FORBIDDEN_HINT, **context
        ) from error
    except (BotoCoreError, HTTPClientError, HTTPError) as error:
        reason = _short(error)
        raise TransientError(
            "blob.unavailable",
            "the blob store cannot be reached",
            hint=_UNREACHABLE_HINT,
            **context,
            reason=reason,
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TransientError(
            "blob.local", "a blob's file cannot be used on this host", **context, reason=reason
        ) from error


def _of_service(error: ClientError, options: S3Options, context: dict[str, str]) -> FleetError:
    code = error_code(error)
    if code == "NoSuchKey":
        return RejectedError("blob.missing", "no such blob", status=404, **context)
    if code == "NoSuchBucket":
        return _no_bucket(options)
    context = {**context, "reason": _short(error)}
    if code in _FULL:
        return TransientError("blob.full", "the blob store is full", **context)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in _FORBIDDEN or status in _FORBIDDEN_STATUS:
        return TransientError("blob.forbidden", "the blob store refuses us", hint=_FORBIDDEN_HINT, **context)
    return TransientError("blob.unavailable", "the blob store cannot be used", **context)


def _no_bucket(options: S3Options) -> TransientError:
    return TransientError(
        "blob.no-bucket",
        "the blob store has no such bucket",
        hint="make the bucket, or correct s3.bucket",
        bucket=options.bucket,
    )


def _short(error: Exception) -> str:
    """Return the reason without the trail of what was tried in between."""
    return str(error).splitlines()[0][:300]
