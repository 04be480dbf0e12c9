"""Waits on state, never on time: a condition, a deadline, and what to print when it passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.02


class DeadlineError(AssertionError):
    """A condition did not come true in time; the text says what was seen instead."""


def wait_until(
    condition: Callable[[], T],
    *,
    what: str,
    deadline_seconds: float = 30.0,
    explain: Callable[[], str] = lambda: "",
) -> T:
    """Return the condition's first truthy value; raise DeadlineError with `explain()` after the deadline."""
    ends_at = time.monotonic() + deadline_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends_at:
            raise DeadlineError(f"{what}: not within {deadline_seconds:.0f} s; last: {value!r}\n{explain()}")
        time.sleep(POLL_SECONDS)
