"""What services do to published objects that the real one in the other tests does not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from hgfleet.adapters.s3_client import S3Options
from hgfleet.adapters.s3_objects import S3Objects
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest

DATA = b"data"
SHA256 = Digest(hashlib.sha256(DATA).hexdigest())
NAME = "app/1.zstd.hg"
KEY = {"Bucket": "b", "Key": NAME}
PUT = {**KEY, "Body": ANY, "ChecksumSHA256": ANY, "ContentType": ANY, "CacheControl": ANY}


@pytest.fixture
def store(tmp_path: Path) -> S3Objects:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    return S3Objects(S3Options("b", region="x", endpoint="http://127.0.0.1:1", credentials_file=credentials))


@pytest.fixture
def service(store: S3Objects) -> Iterator[Stubber]:
    client: Any = store._client
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def has_nothing(service: Stubber) -> None:
    service.add_client_error("head_object", "404", http_status_code=404, expected_params=KEY)
    service.add_response("list_objects_v2", {"KeyCount": 0}, {"Bucket": "b", "Prefix": NAME, "MaxKeys": 1})


def gives(service: Stubber, data: bytes) -> None:
    service.add_response("get_object", {"Body": StreamingBody(io.BytesIO(data), len(data))}, KEY)


def test_a_service_that_knows_no_conditions_gets_the_bytes_without_where_nothing_lies(
    store: S3Objects, service: Stubber, source: Path
) -> None:
    has_nothing(service)
    service.add_client_error("put_object", "NotImplemented", http_status_code=501)
    service.add_response("put_object", {}, PUT)
    store.put(NAME, source, SHA256)


def test_what_lies_there_is_not_written_over_even_by_a_service_without_conditions(
    store: S3Objects, service: Stubber, source: Path
) -> None:
    service.add_response("head_object", {"ContentLength": 5}, KEY)
    gives(service, b"other")
    with pytest.raises(RejectedError) as caught:
        store.put(NAME, source, SHA256)
    assert caught.value.code == "object.taken"


def test_another_publisher_that_was_faster_with_other_bytes_keeps_the_name(
    store: S3Objects, service: Stubber, source: Path
) -> None:
    has_nothing(service)
    service.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    gives(service, b"other")
    with pytest.raises(RejectedError) as caught:
        store.put(NAME, source, SHA256)
    assert caught.value.code == "object.taken"


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, "object.unusable"),
        ("AccessDenied", 403, "object.forbidden"),
        ("QuotaExceeded", 403, "object.full"),
        ("NoSuchBucket", 404, "object.no-bucket"),
        ("BadDigest", 400, "object.unusable"),
    ],
)
def test_each_refusal_is_named(
    store: S3Objects, service: Stubber, source: Path, code: str, status: int, expected: str
) -> None:
    has_nothing(service)
    service.add_client_error("put_object", code, http_status_code=status)
    with pytest.raises(TransientError) as caught:
        store.put(NAME, source, SHA256)
    assert caught.value.code == expected


def test_an_object_that_we_may_not_even_look_for_is_not_an_absent_one(
    store: S3Objects, service: Stubber
) -> None:
    service.add_client_error("head_object", "403", http_status_code=403)
    with pytest.raises(TransientError) as caught:
        store.read_back(NAME)
    assert caught.value.code == "object.forbidden"
