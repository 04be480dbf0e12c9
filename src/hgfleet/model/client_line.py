"""The one line that a client over SSH reads about a failure.

Promises: one line of printable text whatever the error carries; "nothing was changed" is said for
TransientError only, which means exactly that.
Does not: carry context values, which are for logs.
"""

from __future__ import annotations

from hgfleet.errors import NOT_CONFIRMED, NOTHING_CHANGED, FleetError, InDoubtError, TransientError

MAX_LENGTH = 500


def client_line(error: FleetError) -> str:
    """Return the line, without a newline at its end."""
    text = f"abort: {error.message}"
    if isinstance(error, TransientError):
        text = f"abort: temporarily unavailable, {NOTHING_CHANGED}: {error.message}"
    elif isinstance(error, InDoubtError):
        text = f"abort: {NOT_CONFIRMED}"
    if error.hint:
        text += f" ({error.hint})"
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_LENGTH])
