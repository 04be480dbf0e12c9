"""Runs an inner WSGI application so that its answer can be looked at before the client sees any of it.

Promises: an answer up to a limit is held back whole, so that a failure half-way can be answered properly;
what is longer, or written through WSGI's write(), goes on as a stream.
Does not: decide what to do with an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hgfleet.web.answers import Headers, StartResponse, secured

HELD_BYTES = 1024 * 1024
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


@dataclass
class Exchange:
    """One run of the inner application; `start` is the server's."""

    start: StartResponse
    added: Headers  # by us, to every answer
    status: str = ""
    headers: Headers = field(default_factory=list)
    is_sent: bool = False  # the head of the answer is on its way: nothing can be taken back
    sent_bytes: int = 0

    def run(self, application: Application, environ: dict[str, Any]) -> tuple[bytes, Iterator[bytes] | None]:
        """Return the start of the body and what yields the rest, None if that was all."""
        chunks = iter(application(environ, self._capture))
        held: list[bytes] = []
        size = 0
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size > HELD_BYTES:
                return b"".join(held), chunks
        return b"".join(held), None

    def send(self) -> Callable[[bytes], object]:
        """Send the head of the answer; return WSGI's write()."""
        self.is_sent = True
        write: Callable[[bytes], object] = self.start(self.status, secured([*self.headers, *self.added]))
        return write

    def stream(self, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
        """Send the head and yield the whole body."""
        self.send()
        self.sent_bytes += len(first)
        yield first
        for chunk in rest:
            self.sent_bytes += len(chunk)
            yield chunk

    def _capture(self, status: str, headers: Headers, _failure: Any = None) -> Callable[[bytes], object]:
        self.status = status
        self.headers = [(name, value) for name, value in headers if name.lower() != "connection"]
        return self._write

    def _write(self, data: bytes) -> None:
        if not self.is_sent:
            self._inner_write = self.send()
        self.sent_bytes += len(data)
        self._inner_write(data)
