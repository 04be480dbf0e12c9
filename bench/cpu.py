"""Reads what processes have used of the CPU, to the nanosecond where the kernel counts that finely.

Does not: know which processes belong to what.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_TOLERANCE_SECONDS = 0.05


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of living processes, their threads and the children they have waited for."""
    return sum(_own_seconds(pid) + _reaped_seconds(pid) for pid in pids)


def with_descendants(pid: int) -> list[int]:
    """Return a process and everything that it and its children started and that still runs."""
    found = [pid]
    for task in _tasks(pid):
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += with_descendants(int(child))
    return found


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _own_seconds(pid: int) -> float:
    """Return its own use: schedstat counts nanoseconds, stat only hundredths, but ended threads too."""
    fine = sum(map(_thread_seconds, _tasks(pid)))
    fields = _stat_fields(pid)
    coarse = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else 0.0
    return fine if abs(fine - coarse) < _TOLERANCE_SECONDS else max(fine, coarse)


def _thread_seconds(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _reaped_seconds(pid: int) -> float:
    fields = _stat_fields(pid)
    return (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND if fields else 0.0


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on, none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
