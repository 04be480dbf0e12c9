"""How the directory of accounts answers, told to this host's metrics by the process that asks it.

Promises: a reader sees a whole file or none; a disk that cannot be written disturbs no log-in.
Does not: say whether the process that wrote it still runs (the fleet's list of processes does).
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hgfleet.adapters.files import write_by_rename


@dataclass(frozen=True, slots=True)
class DirectoryStatus:
    """What happened since the process started."""

    is_reachable: bool = True
    answered: int = 0  # look-ups answered from an earlier answer
    refused: int = 0  # look-ups that nothing could be said about


def write_directory_status(path: Path, status: DirectoryStatus) -> None:
    """Replace the file."""
    with suppress(OSError):
        write_by_rename(path, json.dumps(asdict(status)).encode())


def read_directory_status(path: Path) -> dict[str, Any] | None:
    """Return the fields of the file, None where there is none."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        return asdict(DirectoryStatus(**fields))
    except (OSError, ValueError, TypeError):
        return None
