"""What a request says, taken from the WSGI environment once.

Promises: the client's address is the peer's, unless the peer is a trusted proxy: then the last address in
X-Forwarded-For that is not one. What the load balancer adds about the fleet is believed of it alone. Nothing
else of a forwarding header, nor Host, is ever used.
Does not: judge arguments (web.arguments).
"""

from __future__ import annotations

import io
import ipaddress
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import RejectedError
from hgfleet.model.ids import RepoId
from hgfleet.web import arguments
from hgfleet.web.deadlines import RECEIVING, Watched

MAX_BODY_BYTES = 16 * 1024 * 1024  # arguments of a wire command: 400,000 changeset ids
MAX_DISCARDED_BYTES = 256 * 1024 * 1024  # of a refused push; a larger one is cut off
BODY_SECONDS = 10.0  # for arguments, and a second more for each of these:
LEAST_BYTES_PER_SECOND = 16 * 1024
DISCARD_SECONDS = 120.0  # a slow client that is refused reads no reason, but holds no thread for ever
_CHUNK_BYTES = 256 * 1024
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest state of a repository that the load balancer has handed out."""

    tag: int  # stands for the repository's id
    seq: int

    def is_beyond(self, repository: RepoId, seq: int) -> bool:
        """Whether an answer at `seq` would take readers back; another repository may have the path now."""
        return seq < self.seq and zlib.crc32(repository.encode()) == self.tag


NOTHING_SEEN = Seen(0, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    environ: dict[str, Any]
    method: str
    path: str  # without the first slash
    query: str
    command: bytes  # the value of `cmd`, b"" if there is none
    client: str  # its address
    seen: Seen = NOTHING_SEEN  # by readers of this repository, through the load balancer
    is_last_resort: bool = False  # no mirror is ready: any answer is better than none

    @property
    def is_person(self) -> bool:
        """Whether an answer in HTML is welcome."""
        return not self.command and "text/html" in self.environ.get("HTTP_ACCEPT", "")

    def inside(self, prefix: str) -> dict[str, Any]:
        """Return the environment for an application that is mounted at a path."""
        mounted = {"SCRIPT_NAME": f"/{prefix}", "PATH_INFO": self.path[len(prefix) :]}
        return self.environ | mounted | {"REQUEST_METHOD": "GET" if self.method == "HEAD" else self.method}

    def question(self, arguments_body: bytes) -> tuple[object, ...]:
        """Return everything of the request that hgweb's answer depends on."""
        own = sorted((k, v) for k, v in self.environ.items() if k.startswith("HTTP_X_HG"))
        is_hg = "mercurial" in self.environ.get("HTTP_USER_AGENT", "")
        return (self.path, self.query, tuple(own), is_hg, arguments_body)


def parse_request(environ: dict[str, Any], trusted: Sequence[Network]) -> Request:
    """Take what matters from the environment."""
    query = environ.get("QUERY_STRING", "")
    is_proxied = _is_in(str(environ.get("REMOTE_ADDR", "")), trusted)
    return Request(
        environ=environ,
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", "").removeprefix("/"),
        query=query,
        command=arguments.wire_command(query),
        client=_client(environ, trusted),
        seen=_parse_seen(environ.get("HTTP_HGFLEET_SEEN", "")) if is_proxied else NOTHING_SEEN,
        is_last_resort=is_proxied and "HTTP_HGFLEET_LAST_RESORT" in environ,
    )


def parse_networks(texts: Sequence[str]) -> list[Network]:
    """Parse the configured proxies' networks."""
    return [ipaddress.ip_network(text) for text in texts]


def _parse_seen(text: str) -> Seen:
    tag, _, seq = text.partition(":")
    is_valid = all(number.isascii() and number.isdigit() for number in (tag, seq))
    return Seen(int(tag[:20]), int(seq[:20])) if is_valid else NOTHING_SEEN


def _client(environ: dict[str, Any], trusted: Sequence[Network]) -> str:
    peer = str(environ.get("REMOTE_ADDR", ""))
    forwarded = [item.strip() for item in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    while _is_in(peer, trusted) and forwarded:
        candidate = forwarded.pop()
        if not _is_address(candidate):
            break
        peer = candidate
    return peer


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def read_to_end(environ: dict[str, Any], answer: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the answer, then take what the client still sends: hg reads no answer before it has sent all."""
    yield from answer
    remaining = MAX_DISCARDED_BYTES
    with _receiving(environ, DISCARD_SECONDS):
        while remaining > 0:
            chunk = environ["wsgi.input"].read(min(remaining, _CHUNK_BYTES))
            if not chunk:
                return
            remaining -= len(chunk)


def read_body(environ: dict[str, Any]) -> bytes:
    """Read the arguments that a client sends in the body.

    Raises RejectedError `web.bad-body`, or `web.slow-body` when they do not come in time.
    """
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or environ.get("HTTP_TRANSFER_ENCODING"):
        raise RejectedError("web.bad-body", "a body needs a length", status=411)
    if int(length) > MAX_BODY_BYTES:
        raise RejectedError("web.bad-body", "the arguments are too large", status=413)
    body = _receive(environ, int(length)) if int(length) else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _receive(environ: dict[str, Any], size: int) -> bytes:
    with _receiving(environ, BODY_SECONDS + size / LEAST_BYTES_PER_SECOND) as watched:
        body: bytes = environ["wsgi.input"].read(size)
    if len(body) == size:
        return body
    if watched.is_over:
        raise RejectedError("web.slow-body", "the arguments did not come in time", status=408)
    raise RejectedError("web.bad-body", "the arguments broke off", status=400)


def _receiving(environ: dict[str, Any], seconds: float) -> AbstractContextManager[Watched]:
    """Bound what the block receives; only a real server says which socket it comes from."""
    sock = environ.get("gunicorn.socket")
    return (
        nullcontext(Watched(lambda: None, 0.0)) if sock is None else RECEIVING.within(lambda: sock, seconds)
    )
