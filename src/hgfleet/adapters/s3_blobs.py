"""The blob store in a bucket of any S3-compatible service: objects named by their SHA-256.

    <prefix>ab/abcd…    a blob

Promises: those of ports.blob_store. The digest goes with the bytes for the service to check, and the object's
size is read back, as not every service checks. A put is conditional where the service knows that, and an
object that is there already is read and compared before it is trusted, so a damaged one is replaced. Missing,
damaged and unreachable are three errors; a bucket that is gone is never "no such blob".
Does not: retry (s3_client's requests do, and nothing above), or resume a download that broke off.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hgfleet.adapters import s3_upload
from hgfleet.adapters.s3_client import (
    CHUNK_BYTES,
    S3_ERRORS,
    S3Options,
    Trouble,
    diagnose,
    head,
    make_client,
    read_digest,
)
from hgfleet.errors import FleetError, PoisonError, RejectedError, TransientError
from hgfleet.model.ids import Digest, parse_digest
from hgfleet.runtime import clock

_FORBIDDEN_HINT = "check s3.credentials_file, or the environment's, and what they may do in s3.bucket"
_UNREACHABLE_HINT = "check s3.endpoint, s3.region and s3.ca_file, and that the store runs"


class S3Blobs:
    """Blobs in a bucket, for any number of threads."""

    def __init__(self, options: S3Options) -> None:
        """Make a client; the service is not asked anything. Raises ConfigError for settings it cannot use."""
        self._options = options
        self._client = make_client(options)

    def put(self, source: Path, sha256: Digest) -> None:
        """Store the file unless it is there; a large one in parts."""
        key = self._key(sha256)
        with _blob_errors(self._options, sha256=sha256):
            size_bytes = source.stat().st_size
            if size_bytes > self._options.part_bytes and self._holds(key, sha256):
                return
            upload = s3_upload.Upload(key, source, sha256)
            is_new = s3_upload.store_if_new(self._client, self._options, upload)
            if not is_new and not self._holds(key, sha256):
                s3_upload.store(self._client, self._options, upload, only_new=False)
            self._read_back(key, size_bytes)

    def get(self, sha256: Digest, target: Path) -> None:
        """Stream the object to a file beside `target`, compare, rename."""
        key = self._key(sha256)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with _blob_errors(self._options, sha256=sha256):
            try:
                if self._copy_out(key, draft) != sha256:
                    raise PoisonError("blob.damaged", "a stored blob is damaged", sha256=sha256)
                draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)

    def contains(self, sha256: Digest) -> bool:
        """Say whether the object is there, without reading it."""
        with _blob_errors(self._options, sha256=sha256):
            return self._head(self._key(sha256)) is not None

    def delete(self, sha256: Digest) -> None:
        """Remove the object."""
        with _blob_errors(self._options, sha256=sha256):
            self._client.delete_object(Bucket=self._options.bucket, Key=self._key(sha256))

    def list(self) -> Iterator[tuple[Digest, int, float]]:
        """Yield what is named by a digest, page by page."""
        with _blob_errors(self._options):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=self._options.prefix):
                for found in page.get("Contents", []):
                    if digest := self._digest_of(found["Key"]):
                        yield digest, found["Size"], found["LastModified"].timestamp()

    def clean_up(self, older_than_seconds: float) -> int:
        """Take back uploads in parts that were begun so long ago and never finished."""
        with _blob_errors(self._options):
            return s3_upload.abort_uploads(self._client, self._options, clock.now() - older_than_seconds)

    def _key(self, sha256: Digest) -> str:
        if not parse_digest(sha256):
            raise RejectedError("blob.no-digest", "a blob is named by its digest")
        return f"{self._options.prefix}{sha256[:2]}/{sha256}"

    def _digest_of(self, key: str) -> Digest | None:
        """Return the digest that an object is named by; None for what is not ours."""
        try:
            digest = parse_digest(key.rpartition("/")[2])
            return digest if digest and self._key(digest) == key else None
        except RejectedError:
            return None

    # ---- storing

    def _read_back(self, key: str, size_bytes: int) -> None:
        """Ask for the object once more: a service that checks nothing is at least asked for its size."""
        found = self._head(key)
        if found is None or found["ContentLength"] != size_bytes:
            raise TransientError("blob.not-stored", "the blob store does not have what it took", key=key)

    # ---- reading

    def _head(self, key: str) -> Any:
        return head(self._client, self._options, key)

    def _holds(self, key: str, sha256: Digest) -> bool:
        """Read the object and compare, so that a damaged one is not taken for the blob."""
        if self._head(key) is None:
            return False
        return read_digest(self._client, self._options, key)[1] == sha256

    def _copy_out(self, key: str, draft: Path) -> Digest:
        answer = self._client.get_object(Bucket=self._options.bucket, Key=key)
        total = hashlib.sha256()
        with draft.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                total.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return Digest(total.hexdigest())


@contextmanager
def _blob_errors(options: S3Options, **context: Any) -> Iterator[None]:
    """Turn what the SDK and the local file system say into the port's errors."""
    try:
        yield
    except s3_upload.WrongDigestError as error:
        raise RejectedError("blob.digest", "the blob is not what its digest says", **context) from error
    except S3_ERRORS as error:
        trouble, reason = diagnose(error)
        raise _error_of(trouble, options, context, reason) from error


def _error_of(trouble: Trouble, options: S3Options, context: dict[str, Any], reason: str) -> FleetError:
    match trouble:
        case Trouble.MISSING:
            return RejectedError("blob.missing", "no such blob", status=404, **context)
        case Trouble.NO_BUCKET:
            hint = "make the bucket, or correct s3.bucket"
            return TransientError(
                "blob.no-bucket", "the blob store has no such bucket", hint=hint, bucket=options.bucket
            )
        case Trouble.FULL:
            return TransientError("blob.full", "the blob store is full", **context, reason=reason)
        case Trouble.FORBIDDEN:
            return TransientError(
                "blob.forbidden", "the blob store refuses us", hint=_FORBIDDEN_HINT, **context, reason=reason
            )
        case Trouble.LOCAL:
            return TransientError(
                "blob.local", "a blob's file cannot be used on this host", **context, reason=reason
            )
        case Trouble.UNUSABLE:
            return TransientError(
                "blob.unavailable", "the blob store cannot be used", **context, reason=reason
            )
    return TransientError(
        "blob.unavailable",
        "the blob store cannot be reached",
        hint=_UNREACHABLE_HINT,
        **context,
        reason=reason,
    )
