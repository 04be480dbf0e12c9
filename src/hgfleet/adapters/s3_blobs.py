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
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from hgfleet.adapters import s3_upload
from hgfleet.adapters.s3_client import S3Options, error_code, make_client, store_errors
from hgfleet.errors import PoisonError, RejectedError, TransientError
from hgfleet.model.ids import Digest, parse_digest
from hgfleet.runtime import clock

CHUNK_BYTES = 1024 * 1024
_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_NOT_KNOWN = frozenset({"NotImplemented", "501"})


class S3Blobs:
    """Blobs in a bucket, for any number of threads."""

    def __init__(self, options: S3Options) -> None:
        """Make a client; the service is not asked anything. Raises ConfigError for settings it cannot use."""
        self._options = options
        self._client = make_client(options)

    def put(self, source: Path, sha256: Digest) -> None:
        """Store the file unless it is there; a large one in parts."""
        key = self._key(sha256)
        with store_errors(self._options, sha256=sha256):
            size_bytes = source.stat().st_size
            is_large = size_bytes > self._options.part_bytes
            if is_large and self._holds(key, sha256):
                return
            store = self._put_large if is_large else self._put_small
            if not self._try_new(store, key, source, sha256) and not self._holds(key, sha256):
                store(key, source, sha256, only_new=False)
            self._read_back(key, size_bytes)

    def get(self, sha256: Digest, target: Path) -> None:
        """Stream the object to a file beside `target`, compare, rename."""
        key = self._key(sha256)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with store_errors(self._options, sha256=sha256):
            try:
                if self._copy_out(key, draft) != sha256:
                    raise PoisonError("blob.damaged", "a stored blob is damaged", sha256=sha256)
                draft.rename(target)
            finally:
                draft.unlink(missing_ok=True)

    def contains(self, sha256: Digest) -> bool:
        """Say whether the object is there, without reading it."""
        with store_errors(self._options, sha256=sha256):
            return self._head(self._key(sha256)) is not None

    def delete(self, sha256: Digest) -> None:
        """Remove the object."""
        with store_errors(self._options, sha256=sha256):
            self._client.delete_object(Bucket=self._options.bucket, Key=self._key(sha256))

    def list(self) -> Iterator[tuple[Digest, int, float]]:
        """Yield what is named by a digest, page by page."""
        with store_errors(self._options):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=self._options.prefix):
                for found in page.get("Contents", []):
                    if digest := self._digest_of(found["Key"]):
                        yield digest, found["Size"], found["LastModified"].timestamp()

    def clean_up(self, older_than_seconds: float) -> int:
        """Take back uploads in parts that were begun so long ago and never finished."""
        with store_errors(self._options):
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

    def _try_new(self, store: Any, key: str, source: Path, sha256: Digest) -> bool:
        """Store under the condition that nothing is there; False: something is."""
        try:
            store(key, source, sha256, only_new=True)
        except ClientError as error:
            code = error_code(error)
            if code in _NOT_KNOWN:  # this service knows no conditions: the same bytes may be written twice
                store(key, source, sha256, only_new=False)
            elif code not in _TAKEN:
                raise
            return code in _NOT_KNOWN
        return True

    def _put_small(self, key: str, source: Path, sha256: Digest, *, only_new: bool) -> None:
        data = source.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RejectedError("blob.digest", "the blob is not what its digest says", sha256=sha256)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
        checksum = s3_upload.encode_checksum(bytes.fromhex(sha256))
        where: dict[str, Any] = {"Bucket": self._options.bucket, "Key": key}
        self._client.put_object(**where, **condition, Body=data, ChecksumSHA256=checksum)

    def _put_large(self, key: str, source: Path, sha256: Digest, *, only_new: bool) -> None:
        s3_upload.upload(
            self._client, self._options, key=key, source=source, sha256=sha256, only_new=only_new
        )

    def _read_back(self, key: str, size_bytes: int) -> None:
        """Ask for the object once more: a service that checks nothing is at least asked for its size."""
        found = self._head(key)
        if found is None or found["ContentLength"] != size_bytes:
            raise TransientError("blob.not-stored", "the blob store does not have what it took", key=key)

    # ---- reading

    def _head(self, key: str) -> Any:
        """Return what is known of an object, None when it is not there. A bucket that is gone is an error."""
        try:
            return self._client.head_object(Bucket=self._options.bucket, Key=key)
        except ClientError as error:
            if error_code(error) != "404":
                raise
        # A HEAD is answered 404 for a missing bucket, too, and says no more: another request does.
        self._client.list_objects_v2(Bucket=self._options.bucket, Prefix=key, MaxKeys=1)
        return None

    def _holds(self, key: str, sha256: Digest) -> bool:
        """Read the object and compare, so that a damaged one is not taken for the blob."""
        if self._head(key) is None:
            return False
        answer = self._client.get_object(Bucket=self._options.bucket, Key=key)
        total = hashlib.sha256()
        for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
            total.update(chunk)
        return total.hexdigest() == sha256

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
