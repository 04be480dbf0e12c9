"""Stores one file in an S3 bucket; a large one in parts: streamed, a bounded number of them at once.

Promises: memory stays at a few parts whatever the file's size; each part's SHA-256 is sent with it; nothing
appears under the key unless the whole file had the digest; an upload that fails is taken back, and one whose
process died is taken back by `abort_uploads`.
Does not: read what is there already (s3_blobs, s3_objects).
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from hgfleet.adapters.s3_client import S3Options, error_code
from hgfleet.model.ids import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_PARTS = 10_000  # what the API takes for one object


_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_NOT_KNOWN = frozenset({"NotImplemented", "501"})


class WrongDigestError(Exception):
    """The file is not what its digest says; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to be stored; `headers` are fields of the API that stay with the object."""

    key: str
    source: Path
    sha256: Digest
    headers: Mapping[str, Any] = field(default_factory=dict)


def store_if_new(client: S3Client, options: S3Options, upload: Upload) -> bool:
    """Store under the condition that nothing is there; False: something is.

    A service that knows no conditions is given the bytes without one. Raises WrongDigestError, S3_ERRORS.
    """
    try:
        store(client, options, upload, only_new=True)
    except ClientError as error:
        code = error_code(error)
        if code not in _TAKEN | _NOT_KNOWN:
            raise
        if code in _NOT_KNOWN:
            store(client, options, upload, only_new=False)
        return code in _NOT_KNOWN
    return True


def store(client: S3Client, options: S3Options, upload: Upload, *, only_new: bool) -> None:
    """Store whatever is there; with `only_new` ClientError tells that something is.

    Raises WrongDigestError, S3_ERRORS.
    """
    condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
    where: dict[str, Any] = {"Bucket": options.bucket, "Key": upload.key}
    if upload.source.stat().st_size > options.part_bytes:
        _store_in_parts(client, options, upload, where, condition)
        return
    data = upload.source.read_bytes()
    if hashlib.sha256(data).hexdigest() != upload.sha256:
        raise WrongDigestError
    checksum = encode_checksum(bytes.fromhex(upload.sha256))
    client.put_object(**where, **condition, **upload.headers, Body=data, ChecksumSHA256=checksum)


def check_digest(source: Path, sha256: Digest) -> None:
    """Raise WrongDigestError for a file that is not what its digest says."""
    with source.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise WrongDigestError


def _store_in_parts(
    client: S3Client, options: S3Options, upload: Upload, where: dict[str, Any], condition: dict[str, Any]
) -> None:
    begun = client.create_multipart_upload(**where, **upload.headers, ChecksumAlgorithm="SHA256")
    where = {**where, "UploadId": begun["UploadId"]}
    try:
        parts, seen = _upload_parts(client, options, where, upload.source)
        if seen != upload.sha256:
            raise WrongDigestError
        client.complete_multipart_upload(**where, **condition, MultipartUpload={"Parts": parts})
    except BaseException:
        abort(client, **where)
        raise


def abort(client: S3Client, **where: Any) -> bool:
    """Take an unfinished upload back and tell whether that worked; the next clean-up gets the rest."""
    with suppress(ClientError, BotoCoreError):
        client.abort_multipart_upload(**where)
        return True
    return False


def abort_uploads(client: S3Client, options: S3Options, before: float) -> int:
    """Take back uploads begun before a time, whose processes died; return how many."""
    count = 0
    pages = client.get_paginator("list_multipart_uploads")
    for page in pages.paginate(Bucket=options.bucket, Prefix=options.prefix):
        for found in page.get("Uploads", []):
            if found["Initiated"].timestamp() < before:
                count += abort(client, Bucket=options.bucket, Key=found["Key"], UploadId=found["UploadId"])
    return count


def encode_checksum(digest: bytes) -> str:
    """Write a SHA-256 as the API's checksum fields have it."""
    return base64.b64encode(digest).decode()


def part_size(size_bytes: int, least_bytes: int) -> int:
    """Return how large parts must be so that the API takes that many."""
    return max(least_bytes, -(-size_bytes // MAX_PARTS))


def _upload_parts(
    client: S3Client, options: S3Options, where: dict[str, Any], source: Path
) -> tuple[list[Any], str]:
    """Send all parts; return what completing the upload needs, and the whole file's digest."""
    total = hashlib.sha256()
    finished: list[Any] = []
    under_way: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(options.parallel_parts, thread_name_prefix="s3-part") as pool:
        try:
            for number, data in enumerate(_read_parts(source, options), start=1):
                total.update(data)
                under_way.append(pool.submit(_upload_part, client, where, number, data))
                if len(under_way) >= options.parallel_parts:  # no more parts in memory than are sent
                    finished.append(under_way.popleft().result())
            finished += [future.result() for future in under_way]
        finally:
            for future in under_way:
                future.cancel()
    return finished, total.hexdigest()


def _read_parts(source: Path, options: S3Options) -> Iterator[bytes]:
    size = part_size(source.stat().st_size, options.part_bytes)
    with source.open("rb") as file:
        while data := file.read(size):
            yield data


def _upload_part(client: S3Client, where: dict[str, Any], number: int, data: bytes) -> Any:
    checksum = encode_checksum(hashlib.sha256(data).digest())
    answer = client.upload_part(**where, PartNumber=number, Body=data, ChecksumSHA256=checksum)
    part = {"PartNumber": number, "ETag": answer["ETag"]}
    return part | ({"ChecksumSHA256": checksum} if answer.get("ChecksumSHA256") else {})
