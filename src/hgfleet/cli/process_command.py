"""The command line of a process of ours: the entry in cli.process, run by this Python.

Promises: nothing of the caller's working directory can be imported by it (-P).
Does not: start it.
"""

from __future__ import annotations

import sys
from pathlib import Path


def process_command(
    role: str, *, config: Path, directory: Path, name: str, host: str | None = None
) -> tuple[str, ...]:
    """Return the argument list; `directory` is the fleet's, `name` what its log lines call it.

    `host` is the one that it works for: a mirror's name, or that of its host in `[[hosts]]`.
    """
    module = (sys.executable, "-P", "-m", "hgfleet.cli.process", role)
    named = ("--host", host) if host else ()
    return (*module, "--config", str(config), "--dir", str(directory), "--name", name, *named)
