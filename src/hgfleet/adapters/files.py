"""Writes small files so that a reader sees the old content or the new, whatever happens in between.

Promises: after write_by_rename() returned, the content is durable under its name; the mode holds from the
first byte on.
Does not: lock; two writers at once must agree by other means.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_by_rename(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace the file. Raises OSError; then the old content stands."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
