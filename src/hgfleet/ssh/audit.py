"""The audit file: one line per session, who asked for what and how it ended.

Promises: a line is one write to a file opened for appending, so lines of several processes never mix; the
file is readable by its owner only. A line that can't be written is logged and stops nobody.
Does not: rotate (a rotated file is noticed, and the next line goes to the new one).
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

_log = logging.getLogger("hgfleet.ssh")


class AuditFile:
    """Appends to one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, fields: dict[str, Any]) -> None:
        """Append one line."""
        line = json.dumps(fields, separators=(",", ":"), default=str).encode() + b"\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.error("audit.failed", extra={"path": str(self._path), "reason": error.strerror})
