"""The one place that asks the time or sleeps.

Promises: `boottime()` goes on while the machine sleeps, so a lease compared with it cannot outlive a suspend.
Does not: schedule anything.
"""

from __future__ import annotations

import time


def now() -> float:
    """Return Unix seconds; for people and for what leaves the host, never for measuring."""
    return time.time()


def monotonic() -> float:
    """Return seconds that never go backwards; for time-outs and durations within one process."""
    return time.monotonic()


def boottime() -> float:
    """Return seconds since boot, suspends included; comparable between the processes of one host."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def sleep(seconds: float) -> None:
    """Block this thread."""
    time.sleep(seconds)
