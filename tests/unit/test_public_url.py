"""What a public URL answers: there, gone, or not to be known; never one for the other."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from hgfleet.adapters.public_url import PublicUrls
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ReadBack

BODY = b"bundle" * 300_000


class Answers(BaseHTTPRequestHandler):
    """Answers with the status in the path; `cut` breaks off."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = 200 if "cut" in self.path or "unsized" in self.path else int(self.path.rpartition("/")[2])
        self.send_response(status)
        if status in {301, 302}:
            self.send_header("Location", "/200")
        if "unsized" not in self.path:
            self.send_header("Content-Length", str(len(BODY)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(BODY[: len(BODY) // 2] if "cut" in self.path else BODY)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Minds no client that goes away."""

    def handle_error(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def urls() -> PublicUrls:
    return PublicUrls(timeout_seconds=5.0)


def test_an_object_that_is_there_is_counted_and_hashed(base_url: str, urls: PublicUrls) -> None:
    assert urls.read(f"{base_url}/200") == ReadBack(len(BODY), Digest(hashlib.sha256(BODY).hexdigest()))
    assert urls.size_of(f"{base_url}/200") == len(BODY)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_gone(base_url: str, urls: PublicUrls, status: int) -> None:
    assert urls.read(f"{base_url}/{status}") is None
    assert urls.size_of(f"{base_url}/{status}") is None


@pytest.mark.parametrize("path", ["500", "503", "429"])
def test_a_server_in_trouble_says_nothing_about_the_object(
    base_url: str, urls: PublicUrls, path: str
) -> None:
    for ask in (urls.read, urls.size_of):
        with pytest.raises(TransientError, match="does not answer"):
            ask(f"{base_url}/{path}")


def test_an_answer_that_breaks_off_says_nothing_about_the_object(base_url: str, urls: PublicUrls) -> None:
    with pytest.raises(TransientError, match="does not answer"):
        urls.read(f"{base_url}/cut")


@pytest.mark.parametrize("status", [301, 302, 401, 403])
def test_a_url_that_clients_cannot_fetch_from_is_refused(
    base_url: str, urls: PublicUrls, status: int
) -> None:
    for ask in (urls.read, urls.size_of):
        with pytest.raises(RejectedError, match="clients cannot fetch"):
            ask(f"{base_url}/{status}")


def test_a_server_that_does_not_tell_the_size_is_refused(base_url: str, urls: PublicUrls) -> None:
    with pytest.raises(RejectedError, match="does not tell the object's size"):
        urls.size_of(f"{base_url}/unsized")


def test_a_server_that_is_not_there_says_nothing_about_the_object(urls: PublicUrls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransientError, match="does not answer"):
        urls.read(f"http://127.0.0.1:{port}/x")


def test_a_server_that_accepts_and_never_answers_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(TransientError, match="does not answer"),
    ):
        PublicUrls(timeout_seconds=0.1).read(f"http://127.0.0.1:{listener.getsockname()[1]}/x")
