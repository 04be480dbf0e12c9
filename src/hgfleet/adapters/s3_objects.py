"""An object store in a bucket of any S3-compatible service, from which clients fetch by its URL or a CDN.

    <prefix><name>    an object

Promises: those of ports.object_store. An object is stored under the condition that nothing has its name,
where the service knows conditions; large ones in parts. Objects say that they never change, so that caches
keep them; pages say that they do. A bucket that is gone, or that we may not read, is never "no such object".
Does not: retry (s3_client's requests do, and nothing above), make the bucket, or say who may read it: a
policy of the bucket lets everybody, or a CDN, read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from hgfleet.adapters import s3_upload
from hgfleet.adapters.object_names import check_name, is_name
from hgfleet.adapters.s3_client import (
    S3_ERRORS,
    S3Options,
    Trouble,
    diagnose,
    head,
    make_client,
    read_digest,
)
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ReadBack, StoredObject
from hgfleet.runtime import clock

COPY_LIMIT_BYTES = 5 * 1024**3  # what the API copies in one request
OBJECT_HEADERS: Mapping[str, Any] = {
    "ContentType": "application/octet-stream",
    "CacheControl": "public, max-age=31536000, immutable",
}
_PAGE_CACHING = "public, max-age=60"
_FORBIDDEN_HINT = (
    "check the store's credentials_file, and that it may put, get, list and delete in the bucket"
)
_UNREACHABLE_HINT = "check the store's endpoint, region and ca_file, and that the service runs"


class S3Objects:
    """Objects in a bucket, for any number of threads."""

    def __init__(self, options: S3Options, copy_limit_bytes: int = COPY_LIMIT_BYTES) -> None:
        """Make a client; the service is not asked anything. Raises ConfigError for settings it cannot use."""
        self.options = options
        self._client = make_client(options)
        self._copying = TransferConfig(
            multipart_threshold=copy_limit_bytes,
            multipart_chunksize=max(copy_limit_bytes // 5, options.part_bytes),
            max_concurrency=options.parallel_parts,
        )

    def put(self, name: str, source: Path, sha256: Digest) -> None:
        """Store the file unless something has the name; what has it is read and compared."""
        key = self._key(name)
        with self._errors(name):
            upload = s3_upload.Upload(key, source, sha256, OBJECT_HEADERS)
            # Looked up first: a service that ignores the condition must not lose what is there.
            is_new = head(self._client, self.options, key) is None
            if is_new and s3_upload.store_if_new(self._client, self.options, upload):
                return
            _, found = read_digest(self._client, self.options, key)
            if found != sha256:
                s3_upload.check_digest(source, sha256)
                raise RejectedError("object.taken", "other bytes have that name", name=name)
        self.renew(name)

    def put_page(self, name: str, data: bytes, content_type: str) -> None:
        """Replace the page, in one request."""
        with self._errors(name):
            self._client.put_object(
                Bucket=self.options.bucket,
                Key=self._key(name),
                Body=data,
                ContentType=content_type,
                CacheControl=_PAGE_CACHING,
            )

    def read_back(self, name: str) -> ReadBack | None:
        """Fetch the object and hash it on the way."""
        key = self._key(name)
        with self._errors(name):
            if head(self._client, self.options, key) is None:
                return None
            return ReadBack(*read_digest(self._client, self.options, key))

    def renew(self, name: str) -> bool:
        """Let the service copy the object onto itself, which makes it young; no bytes travel."""
        key = self._key(name)
        with self._errors(name):
            if head(self._client, self.options, key) is None:
                return False
            self._client.copy(
                {"Bucket": self.options.bucket, "Key": key},
                self.options.bucket,
                key,
                ExtraArgs={**OBJECT_HEADERS, "MetadataDirective": "REPLACE"},
                Config=self._copying,
            )
        return True

    def delete(self, name: str) -> None:
        """Remove the object."""
        key = self._key(name)
        with self._errors(name):
            self._client.delete_object(Bucket=self.options.bucket, Key=key)

    def list(self) -> Iterator[StoredObject]:
        """Yield everything below the prefix that a name can reach, page by page."""
        prefix = self.options.prefix
        with self._errors(""):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.options.bucket, Prefix=prefix):
                for found in page.get("Contents", []):
                    name = found["Key"].removeprefix(prefix)
                    if is_name(name):
                        yield StoredObject(name, found["Size"], found["LastModified"].timestamp())

    def clean_up(self, older_than_seconds: float) -> int:
        """Take back uploads in parts that were begun so long ago and never finished."""
        with self._errors(""):
            return s3_upload.abort_uploads(self._client, self.options, clock.now() - older_than_seconds)

    def _key(self, name: str) -> str:
        return self.options.prefix + check_name(name)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Turn what the SDK and the local file system say into the port's errors."""
        context: dict[str, Any] = {"name": name} if name else {}
        try:
            yield
        except s3_upload.WrongDigestError as error:
            raise RejectedError("object.digest", "the file is not what its digest says", **context) from error
        except S3_ERRORS as error:
            trouble, reason = diagnose(error)
            raise _error_of(trouble, {**context, "bucket": self.options.bucket, "reason": reason}) from error


def _error_of(trouble: Trouble, context: Mapping[str, str]) -> TransientError:
    """Return the port's error. An object that went away between two requests is one, too: ask again."""
    match trouble:
        case Trouble.NO_BUCKET:
            return TransientError(
                "object.no-bucket",
                "the bundle store has no such bucket",
                hint="make the bucket, or correct the store's bucket",
                **context,
            )
        case Trouble.FULL:
            return TransientError("object.full", "the bundle store is full", **context)
        case Trouble.FORBIDDEN:
            return TransientError(
                "object.forbidden", "the bundle store refuses us", hint=_FORBIDDEN_HINT, **context
            )
        case Trouble.LOCAL:
            return TransientError("object.local", "a bundle's file cannot be read on this host", **context)
        case Trouble.UNREACHABLE:
            return TransientError(
                "object.unreachable", "the bundle store cannot be reached", hint=_UNREACHABLE_HINT, **context
            )
    return TransientError("object.unusable", "the bundle store cannot be used", **context)
