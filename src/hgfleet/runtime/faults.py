"""Named crash points and stalls, for tests of what happens between any two steps.

A process calls `reach("point")` where a test may want it to die, wait or fail; without a faults directory
that is one attribute look-up. docs/design/local-protocols.md lists the points and the file contents.

Promises: nothing happens unless the process was configured for tests *and* HGFLEET_FAULTS names a directory.
Does not: choose points at random; a test names the one it wants.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

from hgfleet.runtime import clock

VARIABLE = "HGFLEET_FAULTS"
_POLL_SECONDS = 0.005


class Faults:
    """The faults directory of this process, or none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def reach(self, point: str) -> None:
        """Do what the file named `point` asks for, if there is one.

        Raises OSError(ENOSPC) for `enospc`; does not return for `kill`; blocks for `stall`.
        """
        if self._directory is None:
            return
        path = self._directory / point
        try:
            action = path.read_text().strip()
        except FileNotFoundError:
            return
        if action == "stall":
            self._stall(path)
            return
        path.unlink(missing_ok=True)
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @staticmethod
    def _stall(path: Path) -> None:
        reached = path.with_name(path.name + ".reached")
        reached.write_text(str(os.getpid()))
        while path.exists():
            clock.sleep(_POLL_SECONDS)
        reached.unlink(missing_ok=True)


NO_FAULTS = Faults(None)


def faults_from_environment(is_allowed: bool) -> Faults:
    """Return the faults that the environment names, none unless the configuration allows tests."""
    directory = os.environ.get(VARIABLE, "")
    return Faults(Path(directory)) if is_allowed and directory else NO_FAULTS
