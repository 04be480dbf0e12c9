"""Keeps full clones from the origin within bounds, and out of the way of everything else.

Making a full clone takes seconds to minutes of computing. In a thread beside others it would hold up every
pull of the same process, so a process of its own, at low priority, makes them (web.server.run_clone_lane),
and the web worker hands on what comes. How many may be under way is bounded per worker: the next ones wait
for a moment, as most clones are small, and the rest is refused before it costs anything.

Promises: a place that was taken is given back however the answer ends; a client that is refused is told so by
503 and Retry-After; what waits here never takes more threads than its share.
Does not: say which requests are full clones (web.clone_counting).
"""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hgfleet.errors import TransientError
from hgfleet.web.answers import Answer, Headers, StartResponse

RETRY_AFTER_SECONDS = 30
_WAIT_SECONDS = 10.0
_ANSWER_SECONDS = 300.0  # a lane that is silent for so long hangs
_CHUNK_BYTES = 128 * 1024
_HANDED_ON = ("HTTP_ACCEPT", "HTTP_USER_AGENT", "CONTENT_TYPE", "CONTENT_LENGTH")
# What is about one connection, or what this process says itself.
_OWN = frozenset(("connection", "keep-alive", "transfer-encoding", "date", "server"))


class ClonePlaces:
    """How many full clones one worker answers at once."""

    def __init__(self, places: int, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._free = threading.Semaphore(places)
        self._may_wait = threading.Semaphore(max(1, places // 2))  # whoever waits holds a thread, too
        self._wait_seconds = wait_seconds

    def run(self, work: Callable[[], Answer | Iterable[bytes]]) -> Answer | Iterable[bytes]:
        """Return what `work` does, in a place that is free again once its answer has ended.

        Raises TransientError `web.busy-with-clones` when there is none, also after a moment.
        """
        self._enter()
        try:
            answered = work()
        except BaseException:
            self._free.release()
            raise
        if isinstance(answered, Answer):
            self._free.release()
            return answered
        return _Held(answered, self._free.release)

    def _enter(self) -> None:
        if self._free.acquire(blocking=False):
            return
        is_entered = False
        if self._may_wait.acquire(blocking=False):
            try:
                is_entered = self._free.acquire(timeout=self._wait_seconds)
            finally:
                self._may_wait.release()
        if not is_entered:
            raise TransientError(
                "web.busy-with-clones",
                "too many full clones at the moment, try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )


class _Held:
    """A body at whose end, or whose client's, something is done once; also when nobody ever began it."""

    def __init__(self, body: Iterable[bytes], at_end: Callable[[], None]) -> None:
        self._body = body
        self._chunks = iter(body)
        self._at_end: Callable[[], None] | None = at_end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """End what is under way."""
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        at_end, self._at_end = self._at_end, None
        if at_end is not None:
            at_end()


class CloneLane:
    """A WSGI application that has its answers from the process beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Hand a request on; TransientError while nobody answers."""
        lane = _Connection(self._path)
        try:
            target = urllib.parse.quote(environ["SCRIPT_NAME"] + environ["PATH_INFO"], encoding="latin-1")
            url = f"{target}?{environ.get('QUERY_STRING', '')}"
            body = environ["wsgi.input"].read() if environ.get("CONTENT_LENGTH", "0") != "0" else None
            lane.request(environ["REQUEST_METHOD"], url, body, _headers(environ))
            response = lane.getresponse()
        except (OSError, http.client.HTTPException) as error:
            lane.close()
            raise TransientError(
                "web.no-clone-lane",
                "full clones cannot be answered at the moment, try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS,
                reason=str(error),
            ) from error
        start(f"{response.status} {response.reason}", _kept(response.getheaders()))
        return _read(lane, response)


def _headers(environ: dict[str, Any]) -> dict[str, str]:
    names = [name for name in environ if name.startswith("HTTP_X_HG") or name in _HANDED_ON]
    return {
        name.removeprefix("HTTP_").replace("_", "-").title(): str(environ[name])
        for name in names
        if environ[name]
    }


def _kept(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in _OWN]


def _read(lane: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body as it comes; one that breaks off raises, and our client's breaks off as well."""
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            yield chunk
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
    finally:
        lane.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
