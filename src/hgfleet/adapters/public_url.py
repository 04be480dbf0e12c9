"""Asks a bundle's public URL what a client would get there.

Promises: what is gone (404, 410) is None; what cannot be known (no connection, a time-out, 5xx, an answer
that breaks off) is TransientError: an object that nobody can ask about is not one that is gone. Nothing is
kept of an answer but its size and digest; no cookie, credential or proxy setting is sent.
Does not: follow a redirect, for what clients of every age do with one is not known; retry.
"""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import urllib3

from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import Digest
from hgfleet.ports.object_store import ReadBack

_CHUNK_BYTES = 1024 * 1024
_OK = 200
_GONE = frozenset({404, 410})
_SERVER_ERROR, _TOO_MANY = 500, 429


class PublicUrls:
    """A client of the web without memory; for several threads."""

    def __init__(self, ca_file: Path | None = None, timeout_seconds: float = 30.0) -> None:
        """`ca_file` is whom to trust beside the system's CAs; the time-out is per connection and per read."""
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        self._pool = urllib3.PoolManager(
            ssl_context=context,
            timeout=urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds),
            retries=False,
            headers={"User-Agent": "hgfleet", "Accept-Encoding": "identity"},
        )

    def size_of(self, url: str) -> int | None:
        """Return the object's size by HEAD; None when it is gone. Raises TransientError, RejectedError."""
        try:
            answer = self._pool.request("HEAD", url)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(url, str(error)) from error
        if not _is_there(url, answer):
            return None
        length = answer.headers.get("Content-Length", "")
        if not length.isdigit():
            raise RejectedError("object.url", "the public URL does not tell the object's size", url=url)
        return int(length)

    def read(self, url: str) -> ReadBack | None:
        """Fetch the object and say what it is; None when it is gone. Raises TransientError, RejectedError."""
        try:
            answer = self._pool.request("GET", url, preload_content=False)
            try:
                return _read(answer) if _is_there(url, answer) else None
            finally:
                answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(url, str(error)) from error


def _read(answer: urllib3.BaseHTTPResponse) -> ReadBack:
    total, size_bytes = hashlib.sha256(), 0
    for chunk in answer.stream(_CHUNK_BYTES, decode_content=False):
        total.update(chunk)
        size_bytes += len(chunk)
    return ReadBack(size_bytes, Digest(total.hexdigest()))


def _is_there(url: str, answer: urllib3.BaseHTTPResponse) -> bool:
    if answer.status == _OK:
        return True
    if answer.status in _GONE:
        return False
    if answer.status >= _SERVER_ERROR or answer.status == _TOO_MANY:
        raise _unreachable(url, f"status {answer.status}")
    raise RejectedError(
        "object.url",
        "clients cannot fetch from the public URL",
        hint="it must answer 200 to everybody, without a redirect",
        url=url,
        answered=answer.status,
    )


def _unreachable(url: str, reason: str) -> TransientError:
    return TransientError("object.unreachable", "the public URL does not answer", url=url, reason=reason)
