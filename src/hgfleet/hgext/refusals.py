"""The aborts that hgfleet raises inside Mercurial, and what they may say.

Promises: "nothing was changed" is in the text of exactly those that mean it (D3).
Does not: decide which one applies.
"""

from __future__ import annotations

from mercurial import error

from hgfleet.errors import NOTHING_CHANGED, FleetError


class NotConfirmedAbort(error.Abort):
    """The log may or may not take the change."""


def nothing_changed(reason: str, hint: str = "") -> error.Abort:
    """Return the abort that refuses a change for sure."""
    return error.Abort(f"{reason}; {NOTHING_CHANGED}".encode(), hint=hint.encode() or None)


def reason_of(failure: FleetError) -> str:
    """Return what a pusher is told about a failure."""
    if failure.code == "local.unreachable":
        return "the replication log cannot be reached"
    return str(failure)
