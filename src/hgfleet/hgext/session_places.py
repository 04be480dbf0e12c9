"""Places for sessions that send history: a few at a time, so that clones over SSH leave room for pushes.

A place is a lock on one byte of a file. The kernel gives it back when its holder ends in any way.

Promises: never more holders than places; nothing to clean up after a crash.
Does not: count sessions (the session server does) or know what a place is held for.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hgfleet.errors import TransientError
from hgfleet.runtime import clock

_POLL_SECONDS = 0.05


class Places:
    """The places of one file, as one process sees them; it holds at most one."""

    def __init__(self, path: Path, count: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._count = count
        self._held: int | None = None

    def take(self, wait_seconds: float) -> None:
        """Hold a place, waiting for one. Raises TransientError `sessions.reads-full`."""
        ends_at = clock.monotonic() + wait_seconds
        while not self._try_each():
            if clock.monotonic() >= ends_at:
                raise TransientError(
                    "sessions.reads-full",
                    "too many clones and pulls over SSH at once",
                    hint="use https, or try again later",
                )
            clock.sleep(_POLL_SECONDS)

    def give_back(self) -> None:
        """Let go of the place, if one is held."""
        if self._held is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._held)
            self._held = None

    def _try_each(self) -> bool:
        if self._held is not None:
            return True
        first = os.getpid() % self._count
        for step in range(self._count):
            place = (first + step) % self._count
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError:
                continue
            self._held = place
            return True
        return False
