"""Trying again: with growing pauses, for a bounded time, and only what may succeed later.

Promises: only TransientError is retried, and the last one is raised when the time is over; an error in doubt
is never retried.
Does not: retry at two levels: whoever calls this is the one level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hgfleet.errors import TransientError
from hgfleet.runtime import clock

T = TypeVar("T")


@dataclass(slots=True)
class Backoff:
    """Pauses that double from the first to the longest."""

    first_seconds: float
    longest_seconds: float
    _next_seconds: float = 0.0

    def next_pause(self) -> float:
        """Return how long to wait before the next attempt."""
        pause = max(self._next_seconds, self.first_seconds)
        self._next_seconds = min(pause * 2, self.longest_seconds)
        return pause

    def reset(self) -> None:
        """Start again with the first pause."""
        self._next_seconds = self.first_seconds


def retry(call: Callable[[], T], *, timeout_seconds: float, backoff: Backoff) -> T:
    """Call until it succeeds; raise its TransientError once another pause would pass the time-out. Blocks."""
    deadline = clock.monotonic() + timeout_seconds
    while True:
        try:
            return call()
        except TransientError:
            pause = backoff.next_pause()
            if clock.monotonic() + pause > deadline:
                raise
            clock.sleep(pause)
