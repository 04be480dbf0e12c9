"""Serves the bundle stores that are directories of this machine: it offloads clones with nothing else.

Promises: only files of a store, by their names there; each name has the same bytes for ever, and says so to
caches; a client may ask for a part, to go on with a download that broke off. Memory does not grow with size.
Does not: list anything, or depend on a repository: a bundle that is advertised is served.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hgfleet.web.answers import Answer, Headers, StartResponse, secured, text
from hgfleet.web.requests import Request

PREFIX = "bundle-files/"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CHUNK_BYTES = 256 * 1024
_KEPT_SECONDS = 365 * 86_400


class BundleFiles:
    """What lies at /-/bundle-files/<store>/; any thread may ask."""

    def __init__(self, directory_by_store: Mapping[str, Path]) -> None:
        self._directory_by_store = directory_by_store

    def answer(self, name: str, request: Request, start: StartResponse) -> Answer | Iterable[bytes]:
        """Return the file's bytes, the head being sent, or an answer to send."""
        store, _, rest = name.partition("/")
        directory = self._directory_by_store.get(store)
        if directory is None or not all(_PART.fullmatch(part) for part in rest.split("/")):
            return text(404, "no such bundle")
        try:
            file = _File(directory / rest)
        except OSError:
            return text(404, "no such bundle")
        return file.send(request, start)


class _File:
    """One open file; iterated over once, and closed by the server or its end."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise FileNotFoundError(path)
        self._size = status.st_size
        self._tag = f'"{path.name}"'  # it has the digest in it
        self._first, self._end = 0, self._size

    def send(self, request: Request, start: StartResponse) -> Answer | Iterable[bytes]:
        """Send the head and return what follows it."""
        headers: Headers = [
            ("Content-Type", "application/octet-stream"),
            ("Accept-Ranges", "bytes"),
            ("ETag", self._tag),
            ("Cache-Control", f"public, max-age={_KEPT_SECONDS}, immutable"),
        ]
        status = "200 OK"
        wanted = self._wanted_part(request)
        if wanted is not None:
            self._first, self._end = wanted
            if self._first >= self._end:
                self.close()
                return text(416, "no such part", [("Content-Range", f"bytes */{self._size}")])
            status = "206 Partial Content"
            headers.append(("Content-Range", f"bytes {self._first}-{self._end - 1}/{self._size}"))
        start(status, secured([*headers, ("Content-Length", str(self._end - self._first))]))
        if request.method == "HEAD":
            self.close()
            return ()
        return self

    def _wanted_part(self, request: Request) -> tuple[int, int] | None:
        """Return the part that is asked for, as first byte and the one after the last; None: all of it."""
        asked = _RANGE.fullmatch(request.environ.get("HTTP_RANGE", ""))
        is_same = request.environ.get("HTTP_IF_RANGE", self._tag) == self._tag
        if asked is None or not is_same or not any(asked.groups()):
            return None
        first, last = asked.groups()
        if not first:  # the last so many bytes
            return max(0, self._size - int(last)), self._size
        return int(first), min(int(last) + 1, self._size) if last else self._size

    def __iter__(self) -> Iterator[bytes]:
        offset = self._first
        while offset < self._end:
            data = os.pread(self._descriptor, min(_CHUNK_BYTES, self._end - offset), offset)
            if not data:
                return
            offset += len(data)
            yield data

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
