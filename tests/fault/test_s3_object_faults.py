"""What a real S3 server, its disk and the network to it can do to published objects."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.s3_client import S3Options
from hgfleet.adapters.s3_objects import S3Objects
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ReadBack
from tests.fault.test_s3_faults import PART_BYTES, spool
from tests.support.relay import Relay
from tests.support.s3_server import S3Server
from tests.support.waiting import wait_until

NAME = "team/app/0123abcd.zstd.hg"
SIZE = 3 * PART_BYTES


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    """A server that the test may stop and kill."""
    server = S3Server(tmp_path / "s3")
    server.make_bucket("bundles")
    try:
        yield server.start()
    finally:
        server.stop()


def options_for(server: S3Server, **changes: Any) -> S3Options:
    patience: dict[str, Any] = {"connect_timeout_seconds": 1.0, "read_timeout_seconds": 2.0, "attempts": 2}
    return replace(server.options("bundles", part_bytes=PART_BYTES, **patience), **changes)


def calls_of(store: S3Objects, source: Path, sha256: Digest) -> list[Callable[[], object]]:
    return [
        lambda: store.put(NAME, source, sha256),
        lambda: store.put_page("bundles.json", b"{}", "application/json"),
        lambda: store.read_back(NAME),
        lambda: store.renew(NAME),
        lambda: store.delete(NAME),
        lambda: list(store.list()),
        lambda: store.clean_up(0),
    ]


def expect_from_all(store: S3Objects, source: Path, sha256: Digest, code: str, hint: str) -> None:
    """Expect that every call says what is wrong and what mends it, and none takes it for an absence."""
    for call in calls_of(store, source, sha256):
        with pytest.raises(TransientError) as caught:
            call()
        assert caught.value.code == code, str(caught.value)
        assert hint in caught.value.hint
        assert "bucket=" in str(caught.value)


def test_a_server_killed_in_the_middle_of_an_upload_leaves_no_object(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Objects(options_for(server))
    source, sha256 = spool(tmp_path, 64 * 1024 * 1024)
    failures: list[TransientError] = []

    def put() -> None:
        try:
            store.put(NAME, source, sha256)
        except TransientError as error:
            failures.append(error)

    putting = threading.Thread(target=put)
    putting.start()
    begun = server.data / "bundles" / ".sgwtmp" / "multipart"
    wait_until(lambda: len(list(begun.rglob("*"))) > 3, what="some parts are there")
    server.stop(signal.SIGKILL)
    putting.join(60)
    assert [error.code for error in failures] == ["object.unreachable"]
    server.start()
    assert store.read_back(NAME) is None
    assert list(store.list()) == []
    assert store.clean_up(3600) == 0, "what is young may be under way"
    assert store.clean_up(-60) == 1
    store.put(NAME, source, sha256)
    assert store.read_back(NAME) == ReadBack(64 * 1024 * 1024, sha256)


def test_a_publisher_that_dies_between_two_parts_publishes_nothing(server: S3Server, tmp_path: Path) -> None:
    store = S3Objects(options_for(server))
    source, sha256 = spool(tmp_path, SIZE)
    client: Any = store._client
    client.create_multipart_upload(Bucket="bundles", Key=NAME)  # and no more comes
    assert store.read_back(NAME) is None
    store.put(NAME, source, sha256)
    assert store.read_back(NAME) == ReadBack(SIZE, sha256)
    assert store.clean_up(-60) == 1
    assert store.read_back(NAME) == ReadBack(SIZE, sha256)


def test_a_truncated_object_is_seen_and_keeps_its_name_until_it_is_deleted(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Objects(options_for(server))
    source, sha256 = spool(tmp_path, SIZE)
    store.put(NAME, source, sha256)
    os.truncate(server.object_file("bundles", NAME), PART_BYTES)
    found = store.read_back(NAME)
    assert found is not None
    assert found.sha256 != sha256
    with pytest.raises(RejectedError) as caught:
        store.put(NAME, source, sha256)
    assert caught.value.code == "object.taken"
    store.delete(NAME)
    store.put(NAME, source, sha256)
    assert store.read_back(NAME) == ReadBack(SIZE, sha256)


def test_a_large_file_of_another_digest_is_refused_and_its_parts_are_taken_back(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Objects(options_for(server))
    source, _ = spool(tmp_path, SIZE)
    with pytest.raises(RejectedError) as caught:
        store.put(NAME, source, Digest("0" * 64))
    assert caught.value.code == "object.digest"
    assert store.read_back(NAME) is None
    assert store.clean_up(-60) == 0


def test_an_answer_that_breaks_off_is_neither_missing_nor_damaged(server: S3Server, tmp_path: Path) -> None:
    source, sha256 = spool(tmp_path, 4 * 1024 * 1024)
    S3Objects(options_for(server)).put(NAME, source, sha256)
    relay = Relay(server.process.port)
    relay.answer_bytes = 1024 * 1024
    store = S3Objects(options_for(server, endpoint=f"http://127.0.0.1:{relay.port}"))
    with pytest.raises(TransientError) as caught:
        store.read_back(NAME)
    assert caught.value.code == "object.unreachable"
    relay.answer_bytes = None
    assert store.read_back(NAME) == ReadBack(4 * 1024 * 1024, sha256)
    relay.close()


def test_a_service_that_nobody_reaches_is_said_by_every_call(server: S3Server, tmp_path: Path) -> None:
    store = S3Objects(options_for(server))
    server.stop()
    expect_from_all(store, *spool(tmp_path, 100), "object.unreachable", "endpoint")


def test_a_service_that_answers_nothing_is_given_up(server: S3Server, tmp_path: Path) -> None:
    store = S3Objects(options_for(server, read_timeout_seconds=1.0, attempts=1))
    source, sha256 = spool(tmp_path, 100)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TransientError) as caught:
            store.put(NAME, source, sha256)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert caught.value.code == "object.unreachable"
    store.put(NAME, source, sha256)


def test_wrong_credentials_are_said_by_every_call_with_the_setting_to_mend(
    server: S3Server, tmp_path: Path
) -> None:
    wrong = tmp_path / "credentials"
    wrong.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n")
    store = S3Objects(options_for(server, credentials_file=wrong))
    expect_from_all(store, *spool(tmp_path, 100), "object.forbidden", "credentials_file")


def test_a_missing_bucket_is_never_taken_for_missing_objects(server: S3Server, tmp_path: Path) -> None:
    store = S3Objects(options_for(server, bucket="elsewhere"))
    expect_from_all(store, *spool(tmp_path, 100), "object.no-bucket", "bucket")


def test_a_file_that_cannot_be_read_here_is_not_blamed_on_the_store(server: S3Server, tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        S3Objects(options_for(server)).put(NAME, tmp_path / "absent", Digest("0" * 64))
    assert caught.value.code == "object.local"
