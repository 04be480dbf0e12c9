"""Where a payload is made: in memory while it is small, in a spool file when it is not.

Promises: a payload's size and SHA-256 are known when it is whole; a spool file of a process that died is
recognisable (its name starts with `payload-`) and worthless.
Does not: put anything into the blob store.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from hgfleet.model.ids import Digest
from hgfleet.model.message import NO_PAYLOAD, PayloadRef


class Spool:
    """A payload being written."""

    def __init__(self, directory: Path, inline_limit_bytes: int) -> None:
        self._directory = directory
        self._limit = inline_limit_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self.path: Path | None = None

    def write(self, data: bytes) -> None:
        """Take more bytes. Raises OSError: the disk is full."""
        self._digest.update(data)
        self._size += len(data)
        if self._file is None and self._size > self._limit:
            self._open()
        if self._file is None:
            self._parts.append(data)
        else:
            self._file.write(data)

    @property
    def inline(self) -> bytes:
        """The whole payload when it is small, nothing otherwise."""
        return b"".join(self._parts)

    def finish(self) -> PayloadRef:
        """Return what the message says about the payload; no more is written."""
        if self._file is not None:
            self._file.close()
        if self._size == 0:
            return NO_PAYLOAD
        return PayloadRef(self._size, Digest(self._digest.hexdigest()), self.path is None)

    def discard(self) -> None:
        """Delete the spool file, unless the blob store has taken it over."""
        if self._file is not None:
            self._file.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="payload-", dir=self._directory)
        self.path = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        self._file.write(b"".join(self._parts))
        self._parts.clear()
