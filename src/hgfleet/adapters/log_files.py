"""Collects what child processes print into one log file each, as JSON lines, rotated by size.

Promises: every line of a file is a JSON object; a line that is none (a traceback, another program's output)
is wrapped as event `output`; nothing that a child wrote before it ended is lost while the collector lives and
the disk has room (otherwise the next line tells how many were lost, and no child is held up); a file never
grows past its size by more than one line.
Does not: filter, or survive its own process: who writes then gets EPIPE, and ends anyway.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hgfleet.runtime import clock

_CHUNK_BYTES = 65536
_MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is rotated and how many old ones are kept."""

    file_size_bytes: int
    files_kept: int


class LogFile:
    """One file and its rotated predecessors, `name.log.1` the newest."""

    def __init__(self, path: Path, rotation: Rotation) -> None:
        self._path = path
        self._rotation = rotation
        self._rest = b""
        self._lost = 0
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Take bytes as they come; whole lines are written."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._write_line(line)

    def close(self) -> None:
        """Write what is left and close."""
        if self._rest:
            self._write_line(self._rest)
        self._file.close()

    def _write_line(self, line: bytes) -> None:
        if not line.strip():
            return
        text = _as_json(line, self._path.stem) + b"\n"
        if self._lost:
            text = _as_json(b"%d lines were lost" % self._lost, self._path.stem) + b"\n" + text
        try:
            self._append(text)
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def _append(self, text: bytes) -> None:
        """Write all of it or nothing. Raises OSError, usually because the disk is full."""
        size = self._file.seek(0, os.SEEK_END)
        if size > self._rotation.file_size_bytes:
            self._rotate()
            size = 0
        if self._file.write(text) != len(text):
            self._file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._rotation.files_kept, 0, -1):
            older = self._path if number == 1 else self._numbered(number - 1)
            if older.exists():
                older.rename(self._numbered(number))
        self._file = self._path.open("ab", buffering=0)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _as_json(line: bytes, process: str) -> bytes:
    if line.startswith(b"{") and line.rstrip().endswith(b"}"):
        return line
    at = datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds")
    text = line.decode("utf-8", "replace")
    return json.dumps({"event": "output", "text": text, "process": process, "at": at}).encode()


class LogCollector:
    """A thread that reads the pipes of all children."""

    def __init__(self, directory: Path, rotation: Rotation) -> None:
        self.directory = directory
        self._rotation = rotation
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._waker, self._wake_end = os.pipe()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._is_closing = False
        self._thread = threading.Thread(target=self._collect, name="log-collector", daemon=True)
        self._thread.start()

    def open(self, name: str) -> int:
        """Return a pipe's writing end for the child `name`; the caller closes it once the child has it."""
        reader, writer = os.pipe()
        log = LogFile(self._path(name), self._rotation)
        with self._lock:
            self._selector.register(reader, selectors.EVENT_READ, log)
        os.write(self._wake_end, b"x")
        return writer

    def last_failure(self, name: str) -> str:
        """Return why the child ended, as its last line says; "" when it does not."""
        lines = self._path(name).read_bytes().splitlines()
        fields = json.loads(lines[-1]) if lines else {}
        return str(fields.get("reason") or fields.get("text") or "")

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def close(self) -> None:
        """Read what the children left behind; call it after they have ended. Blocks briefly."""
        self._is_closing = True
        os.write(self._wake_end, b"x")
        self._thread.join(timeout=2.0)

    def _collect(self) -> None:
        while True:
            ready = self._selector.select(timeout=0.2 if self._is_closing else None)
            for key, _events in ready:
                if key.fd == self._waker:
                    os.read(self._waker, _CHUNK_BYTES)
                else:
                    self._read(key)
            if self._is_closing and not any(key.data for key, _events in ready):
                return

    def _read(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, _CHUNK_BYTES)
        if data:
            key.data.write(data)
            return
        with self._lock:
            self._selector.unregister(key.fd)
        os.close(key.fd)
        key.data.close()
