"""Makes this process give way to all others: for work that nobody waits for, on hosts that serve.

Promises: processor and disk are used when nobody else wants them; what the system refuses is gone without,
as the work is the same, only less polite.
Does not: limit memory, or other processes than this one and what it starts.
"""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress

_NICENESS = 19
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # the system call's number; the C library has no name for it
_THIS_PROCESS = 1
_IDLE_CLASS = 3 << 13


def give_way() -> None:
    """Take the lowest priorities; there is no way back."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, _THIS_PROCESS, 0, _IDLE_CLASS)
