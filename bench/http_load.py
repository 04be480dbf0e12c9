"""Asks one URL again and again over connections that stay open, as fast as the answers come.

Promises: every answer is read to its end and must have the expected status; the client does as little as it
can besides, for it shares the machine with what it measures.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 60.0
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One GET and what is known of its answer."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200

    def wire(self) -> bytes:
        """Return the request as it is sent."""
        parts = urlsplit(self.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", "Connection: keep-alive"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Connection:
    """One connection, opened again when the server closes it."""

    def __init__(self, url: str, ca_file: str | None) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "localhost", parts.port or 443)
        self._context = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._socket: socket.socket | None = None
        self._rest = b""

    def ask(self, request: Request) -> bytes:
        """Send a request and return the answer's body; raise AssertionError for another status."""
        wire = request.wire()
        try:
            return self._ask(wire, request.status)
        except (ConnectionError, EOFError):
            self.close()
            return self._ask(wire, request.status)

    def close(self) -> None:
        """Close it; the next request opens it anew."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _ask(self, wire: bytes, status: int) -> bytes:
        if self._socket is None:
            self._socket = self._open()
        self._socket.sendall(wire)
        head = self._read_until(b"\r\n\r\n").lower()
        assert head.split(b" ", 2)[1] == str(status).encode(), (wire[:200], head[:500])
        body = self._read_body(head)
        if b"connection: close" in head:
            self.close()
        return body

    def _open(self) -> socket.socket:
        plain = socket.create_connection(self._address, _TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            return plain
        return self._context.wrap_socket(plain, server_hostname=self._address[0])

    def _read_body(self, head: bytes) -> bytes:
        if b"transfer-encoding: chunked" in head:
            return self._read_chunks()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
        return self._read_exactly(int(length)) if length else self._read_to_end()

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self._read_until(b"\r\n").split(b";")[0], 16):
            parts.append(self._read_exactly(size + 2)[:-2])
        self._read_until(b"\r\n")
        return b"".join(parts)

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._fill()
        found, _, self._rest = self._rest.partition(mark)
        return found + mark

    def _read_exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._fill()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _read_to_end(self) -> bytes:
        try:
            while True:
                self._fill()
        except EOFError:
            found = self._rest
            self.close()
            return found

    def _fill(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(_CHUNK_BYTES)
        if not data:
            raise EOFError
        self._rest += data


@dataclass(frozen=True, slots=True)
class Load:
    """How much of one request was answered."""

    answers: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds


def run_load(
    requests: Sequence[Request], ca_file: str | None, *, seconds: float, connections: int = 4
) -> Load:
    """Ask the requests in turn over several connections for so long; each connection asks at least once."""
    clients = [Connection(requests[0].url, ca_file) for _ in range(connections)]
    for client in clients:  # connected, and whatever is kept of answers is there
        for request in requests:
            client.ask(request)
    started_at = time.perf_counter()
    counts = [0] * connections
    threads = [
        threading.Thread(target=_ask_until, args=(client, requests, started_at + seconds, counts, place))
        for place, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started_at
    for client in clients:
        client.close()
    assert all(counts), "a connection got no answer"
    return Load(sum(counts), took)


def _ask_until(
    client: Connection, requests: Sequence[Request], ends_at: float, counts: list[int], place: int
) -> None:
    while not counts[place] or time.perf_counter() < ends_at:
        client.ask(requests[counts[place] % len(requests)])
        counts[place] += 1
