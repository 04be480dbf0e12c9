"""What a real S3 server, its disk and the network to it can do to blobs."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.blob_check import check_blob_store
from hgfleet.adapters.s3_blobs import S3Blobs
from hgfleet.adapters.s3_client import S3Options
from hgfleet.errors import ConfigError, PoisonError, RejectedError, TransientError
from hgfleet.model.ids import Digest
from tests.support.authority import make_authority
from tests.support.relay import Relay
from tests.support.s3_server import REGION, VIRTUAL_DOMAIN, S3Server
from tests.support.waiting import wait_until

PART_BYTES = 5 * 1024 * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    """A server that the test may stop and kill."""
    server = S3Server(tmp_path / "s3")
    server.make_bucket("blobs")
    try:
        yield server.start()
    finally:
        server.stop()


def options_for(server: S3Server, **changes: Any) -> S3Options:
    options = S3Options(
        bucket="blobs",
        endpoint=server.endpoint,
        region=REGION,
        addressing="path",
        credentials_file=server.credentials_file,
        connect_timeout_seconds=1.0,
        read_timeout_seconds=2.0,
        attempts=2,
        part_bytes=PART_BYTES,
    )
    return replace(options, **changes)


def spool(tmp_path: Path, size_bytes: int, seed: str = "x") -> tuple[Path, Digest]:
    block = hashlib.sha512(seed.encode()).digest() * 16384
    path = tmp_path / f"spool-{seed}"
    with path.open("wb") as file:
        while file.tell() < size_bytes:
            file.write(block[: size_bytes - file.tell()])
    with path.open("rb") as file:
        return path, Digest(hashlib.file_digest(file, "sha256").hexdigest())


def object_file(server: S3Server, sha256: Digest) -> Path:
    return server.object_file("blobs", f"{sha256[:2]}/{sha256}")


def test_a_server_killed_in_the_middle_of_an_upload_leaves_nothing_that_counts(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Blobs(options_for(server))
    source, sha256 = spool(tmp_path, 64 * 1024 * 1024)
    failures: list[TransientError] = []

    def put() -> None:
        try:
            store.put(source, sha256)
        except TransientError as error:
            failures.append(error)

    putting = threading.Thread(target=put)
    putting.start()
    begun = server.data / "blobs" / ".sgwtmp" / "multipart"
    wait_until(lambda: len(list(begun.rglob("*"))) > 3, what="some parts are there")
    server.stop(signal.SIGKILL)
    putting.join(60)
    assert [error.code for error in failures] == ["blob.unavailable"]
    server.start()
    assert not store.contains(sha256)
    assert list(store.list()) == []
    assert store.clean_up(3600) == 0, "what is young may be under way"
    assert store.clean_up(-60) == 1
    assert store.clean_up(-60) == 0
    store.put(source, sha256)
    store.get(sha256, tmp_path / "target")
    assert (tmp_path / "target").stat().st_size == 64 * 1024 * 1024


def test_a_large_file_of_another_digest_is_refused_and_its_parts_are_taken_back(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Blobs(options_for(server))
    source, _ = spool(tmp_path, 2 * PART_BYTES)
    with pytest.raises(RejectedError) as caught:
        store.put(source, Digest("0" * 64))
    assert caught.value.code == "blob.digest"
    assert list(store.list()) == []
    assert store.clean_up(-60) == 0


def test_a_truncated_object_is_damaged_and_put_again_replaces_it(server: S3Server, tmp_path: Path) -> None:
    store = S3Blobs(options_for(server))
    source, sha256 = spool(tmp_path, 2 * PART_BYTES)
    store.put(source, sha256)
    os.truncate(object_file(server, sha256), PART_BYTES)
    with pytest.raises(PoisonError) as caught:
        store.get(sha256, tmp_path / "target")
    assert caught.value.code == "blob.damaged"
    store.put(source, sha256)
    store.get(sha256, tmp_path / "target")


def test_a_connection_cut_in_the_middle_of_a_download_is_neither_missing_nor_damaged(
    server: S3Server, tmp_path: Path
) -> None:
    source, sha256 = spool(tmp_path, 4 * 1024 * 1024)
    S3Blobs(options_for(server)).put(source, sha256)
    relay = Relay(server.process.port)
    relay.answer_bytes = 1024 * 1024
    store = S3Blobs(options_for(server, endpoint=f"http://127.0.0.1:{relay.port}"))
    with pytest.raises(TransientError) as caught:
        store.get(sha256, tmp_path / "target")
    assert caught.value.code == "blob.unavailable"
    assert not (tmp_path / "target").exists()
    assert not list(tmp_path.glob(".target*"))
    relay.answer_bytes = None
    store.get(sha256, tmp_path / "target")
    relay.close()


def test_an_endpoint_that_nobody_listens_on_is_said_soon(server: S3Server, tmp_path: Path) -> None:
    store = S3Blobs(options_for(server))
    source, sha256 = spool(tmp_path, 100)
    server.stop()
    for call in (
        lambda: store.put(source, sha256),
        lambda: store.contains(sha256),
        lambda: list(store.list()),
    ):
        started_at = time.monotonic()
        with pytest.raises(TransientError) as caught:
            call()
        assert caught.value.code == "blob.unavailable"
        assert "s3.endpoint" in caught.value.hint
        assert time.monotonic() - started_at < 15
    with pytest.raises(TransientError):
        store.get(sha256, tmp_path / "target")


def test_a_server_that_takes_connections_and_answers_nothing_is_given_up(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Blobs(options_for(server, read_timeout_seconds=1.0))
    source, sha256 = spool(tmp_path, 100)
    os.kill(server.process.pid, signal.SIGSTOP)
    with pytest.raises(TransientError) as caught:
        store.put(source, sha256)
    os.kill(server.process.pid, signal.SIGCONT)
    assert caught.value.code == "blob.unavailable"
    store.put(source, sha256)


def test_wrong_credentials_are_said_with_the_setting_to_mend(server: S3Server, tmp_path: Path) -> None:
    wrong = tmp_path / "credentials"
    wrong.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n")
    store = S3Blobs(options_for(server, credentials_file=wrong))
    source, sha256 = spool(tmp_path, 100)
    for call in (lambda: store.put(source, sha256), lambda: store.contains(sha256)):
        with pytest.raises(TransientError) as caught:
            call()
        assert caught.value.code == "blob.forbidden", str(caught.value)
        assert "s3.credentials_file" in caught.value.hint


def test_an_unusable_file_of_credentials_keeps_the_store_from_opening(
    server: S3Server, tmp_path: Path
) -> None:
    for content in (None, "", "[default]\naws_access_key_id = only\n", "no ini"):
        path = tmp_path / "credentials"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError) as caught:
            S3Blobs(options_for(server, credentials_file=path))
        assert caught.value.code == "s3.credentials"
        assert "only" not in str(caught.value)


def test_a_missing_bucket_is_never_taken_for_missing_blobs(server: S3Server, tmp_path: Path) -> None:
    store = S3Blobs(options_for(server, bucket="elsewhere"))
    source, sha256 = spool(tmp_path, 100)
    for call in (
        lambda: store.put(source, sha256),
        lambda: store.get(sha256, tmp_path / "target"),
        lambda: store.contains(sha256),
        lambda: list(store.list()),
        lambda: store.clean_up(0),
    ):
        with pytest.raises(TransientError) as caught:
            call()
        assert caught.value.code == "blob.no-bucket"


def test_a_full_disk_here_is_not_blamed_on_the_store(server: S3Server, tmp_path: Path) -> None:
    store = S3Blobs(options_for(server))
    source, sha256 = spool(tmp_path, 100)
    store.put(source, sha256)
    with pytest.raises(TransientError) as caught:
        store.get(sha256, tmp_path / "no" / "such" / "directory")
    assert caught.value.code == "blob.local"


def test_only_the_given_authority_is_trusted(tmp_path: Path) -> None:
    mine, other = make_authority(tmp_path / "mine"), make_authority(tmp_path / "other")
    server = S3Server(tmp_path / "s3", certificate=(mine.certificate, mine.key))
    server.make_bucket("blobs")
    server.start()
    try:
        source, sha256 = spool(tmp_path, 100)
        S3Blobs(options_for(server, ca_file=mine.ca)).put(source, sha256)
        with pytest.raises(TransientError) as caught:
            S3Blobs(options_for(server, ca_file=other.ca)).put(source, sha256)
        assert caught.value.code == "blob.unavailable"
        assert "certificate" in str(caught.value).lower()
        with pytest.raises(ConfigError):
            S3Blobs(options_for(server, ca_file=tmp_path / "absent.pem"))
    finally:
        server.stop()


def test_a_bucket_may_be_named_by_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, asked = socket.getaddrinfo, []

    def resolve_here(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if str(host).endswith(VIRTUAL_DOMAIN) else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    server = S3Server(tmp_path / "s3", virtual_hosts=True)
    server.make_bucket("blobs")
    server.start()
    try:
        endpoint = f"http://{VIRTUAL_DOMAIN}:{server.process.port}"
        store = S3Blobs(options_for(server, endpoint=endpoint, addressing="virtual"))
        source, sha256 = spool(tmp_path, 100)
        store.put(source, sha256)
        store.get(sha256, tmp_path / "target")
        assert object_file(server, sha256).exists()
        assert f"blobs.{VIRTUAL_DOMAIN}" in asked
    finally:
        server.stop()


def test_a_check_says_what_is_wrong_with_the_store_and_what_mends_it(
    server: S3Server, tmp_path: Path
) -> None:
    store = S3Blobs(options_for(server))
    [finding] = check_blob_store(store, "s3://blobs")
    assert finding.is_good, finding
    assert list(store.list()) == []
    [finding] = check_blob_store(S3Blobs(options_for(server, bucket="elsewhere")), "s3://elsewhere")
    assert not finding.is_good
    assert "s3.bucket" in finding.remedy
    server.stop()
    [finding] = check_blob_store(store, "s3://blobs")
    assert not finding.is_good
    assert "cannot put a blob" in finding.text
    assert "s3.endpoint" in finding.remedy
