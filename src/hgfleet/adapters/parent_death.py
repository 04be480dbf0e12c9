"""Lets a forked worker end with the process that forked it, kill -9 included.

Promises: after die_with_parent() returned, the kernel kills this process when the *thread* that forked it
ends.
Does not: start anything; adapters.processes sees to programs that are not forked.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask for SIGKILL at the parent's death; end at once if it is dead already and init has us."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == 1:
        os._exit(1)
