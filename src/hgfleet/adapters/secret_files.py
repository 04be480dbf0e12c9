"""Whether a file with a secret is one: for `hgfleet doctor`.

Promises: a file that any account of the machine may read or write is found; a group of its own may be meant.
Does not: read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hgfleet.model.finding import Finding

_OTHERS = 0o007


def check_secret_file(subject: str, path: Path | None) -> Iterator[Finding]:
    """Yield what is wrong; nothing for None or a file that is not there, which its reader reports."""
    try:
        mode = path.stat().st_mode if path is not None else 0
    except OSError:
        return
    if mode & _OTHERS:
        yield Finding(subject, False, f"{path} is open to every account of this machine", f"chmod o= {path}")
