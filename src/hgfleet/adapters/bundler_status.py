"""How the bundler fares, told to this host's metrics by the process that is one.

Promises: a reader sees a whole file or none; a disk that cannot be written keeps no bundle from being made.
Does not: say whether the process that wrote it still runs (`looked_at` grows old when it does not).
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hgfleet.adapters.files import write_by_rename


@dataclass(frozen=True, slots=True)
class BundlerStatus:
    """What the last look at all repositories found; `gone` counts since the process started."""

    looked_at: float  # Unix seconds
    failing: int = 0  # repositories for which the last attempt failed, wholly or at a store
    failing_by_store: dict[str, int] = field(default_factory=dict)
    unreachable: int = 0  # advertised bundles that could not be asked for
    gone: int = 0  # advertised bundles that were found gone or damaged


def write_bundler_status(path: Path, status: BundlerStatus) -> None:
    """Replace the file."""
    with suppress(OSError):
        write_by_rename(path, json.dumps(asdict(status)).encode())


def read_bundler_status(path: Path) -> dict[str, Any] | None:
    """Return the fields of the file, None where there is none."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        return asdict(BundlerStatus(**fields))
    except (OSError, ValueError, TypeError):
        return None
