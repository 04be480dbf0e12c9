"""What services do that the real one in the other tests does not: no conditions, no checks, odd answers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from hgfleet.adapters.s3_blobs import S3Blobs
from hgfleet.adapters.s3_client import S3Options
from hgfleet.adapters.s3_upload import MAX_PARTS, part_size
from hgfleet.errors import TransientError
from hgfleet.model.ids import Digest

DATA = b"data"
SHA256 = Digest(hashlib.sha256(DATA).hexdigest())
KEY = {"Bucket": "b", "Key": f"{SHA256[:2]}/{SHA256}"}
PUT = {**KEY, "Body": ANY, "ChecksumSHA256": ANY}


class Service:
    """The answers that a service will give, in order."""

    def __init__(self, stubber: Stubber) -> None:
        self._stubber = stubber

    def refuses_put(self, code: str, status: int) -> None:
        self._stubber.add_client_error(
            "put_object", code, http_status_code=status, expected_params={**PUT, "IfNoneMatch": "*"}
        )

    def takes_put(self, *, if_new: bool) -> None:
        condition = {"IfNoneMatch": "*"} if if_new else {}
        self._stubber.add_response("put_object", {}, {**PUT, **condition})

    def has(self, size_bytes: int) -> None:
        self._stubber.add_response("head_object", {"ContentLength": size_bytes}, KEY)

    def gives(self, data: bytes) -> None:
        body = StreamingBody(io.BytesIO(data), len(data))
        self._stubber.add_response("get_object", {"Body": body}, KEY)


@pytest.fixture
def store(tmp_path: Path) -> S3Blobs:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    return S3Blobs(S3Options("b", region="x", endpoint="http://127.0.0.1:1", credentials_file=credentials))


@pytest.fixture
def service(store: S3Blobs) -> Iterator[Service]:
    client: Any = store._client
    with Stubber(client) as stubber:
        yield Service(stubber)
        stubber.assert_no_pending_responses()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def test_a_service_that_knows_no_conditions_gets_the_bytes_without(
    store: S3Blobs, service: Service, source: Path
) -> None:
    service.refuses_put("NotImplemented", 501)
    service.takes_put(if_new=False)
    service.has(len(DATA))
    store.put(source, SHA256)


@pytest.mark.parametrize(
    ("code", "status"), [("PreconditionFailed", 412), ("ConditionalRequestConflict", 409)]
)
def test_what_is_there_already_is_read_and_left_alone(
    store: S3Blobs, service: Service, source: Path, code: str, status: int
) -> None:
    service.refuses_put(code, status)
    service.has(len(DATA))
    service.gives(DATA)
    service.has(len(DATA))
    store.put(source, SHA256)


def test_what_is_there_and_damaged_is_replaced(store: S3Blobs, service: Service, source: Path) -> None:
    service.refuses_put("PreconditionFailed", 412)
    service.has(len(DATA))
    service.gives(b"dat!")
    service.takes_put(if_new=False)
    service.has(len(DATA))
    store.put(source, SHA256)


def test_a_service_that_keeps_less_than_it_took_is_found_out(
    store: S3Blobs, service: Service, source: Path
) -> None:
    service.takes_put(if_new=True)
    service.has(len(DATA) - 1)
    with pytest.raises(TransientError) as caught:
        store.put(source, SHA256)
    assert caught.value.code == "blob.not-stored"


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, "blob.unavailable"),
        ("AccessDenied", 403, "blob.forbidden"),
        ("SomethingNew", 401, "blob.forbidden"),
        ("QuotaExceeded", 403, "blob.full"),
        ("NoSuchBucket", 404, "blob.no-bucket"),
        ("BadDigest", 400, "blob.unavailable"),
    ],
)
def test_each_refusal_is_named(
    store: S3Blobs, service: Service, source: Path, code: str, status: int, expected: str
) -> None:
    service.refuses_put(code, status)
    with pytest.raises(TransientError) as caught:
        store.put(source, SHA256)
    assert caught.value.code == expected


def test_parts_grow_only_when_there_would_be_too_many() -> None:
    assert part_size(1, 8) == 8
    assert part_size(8 * MAX_PARTS, 8) == 8
    assert part_size(8 * MAX_PARTS + 1, 8) == 9
