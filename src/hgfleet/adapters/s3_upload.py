"""Stores one large file in an S3 bucket, in parts: streamed, a bounded number of them at once.

Promises: memory stays at a few parts whatever the file's size; each part's SHA-256 is sent with it; nothing
appears under the key unless the whole file had the digest; an upload that fails is taken back, and one whose
process died is taken back by `abort_uploads`.
Does not: look whether the object is there already (s3_blobs).
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from hgfleet.adapters.s3_client import S3Options
from hgfleet.errors import RejectedError
from hgfleet.model.ids import Digest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_PARTS = 10_000  # what the API takes for one object


def upload(
    client: S3Client, options: S3Options, *, key: str, source: Path, sha256: Digest, only_new: bool
) -> None:
    """Store the file; with `only_new` ClientError `PreconditionFailed` tells that another was faster.

    Raises RejectedError `blob.digest`, what the SDK raises, or OSError.
    """
    where: dict[str, Any] = {"Bucket": options.bucket, "Key": key}
    begun = client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")
    where["UploadId"] = begun["UploadId"]
    try:
        parts, seen = _upload_parts(client, options, where, source)
        if seen != sha256:
            raise RejectedError("blob.digest", "the blob is not what its digest says", sha256=sha256)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
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
