"""The aborts that hgfleet raises inside Mercurial, what they may say, and how much of it reaches the client.

Promises: "nothing was changed" is in the text of exactly those that mean it (D3), however long their reason
is; a text that does not fit into Mercurial's answer is cut, instead of breaking the answer off.
Does not: decide which one applies.
"""

from __future__ import annotations

from typing import Any

from mercurial import bundle2, error

from hgfleet.errors import NOTHING_CHANGED, FleetError

MAX_TEXT_BYTES = 255  # of a parameter in bundle2: its size is one byte
_CUT = b"..."


class NotConfirmedAbort(error.Abort):
    """The log may or may not take the change."""


def nothing_changed(reason: str, hint: str = "") -> error.Abort:
    """Return the abort that refuses a change for sure."""
    end = f"; {NOTHING_CHANGED}".encode()
    text = cut(reason.encode(errors="replace"), MAX_TEXT_BYTES - len(end)) + end
    return error.Abort(text, hint=cut(hint.encode(errors="replace")) or None)


def reason_of(failure: FleetError) -> str:
    """Return what a pusher is told about a failure."""
    if failure.code == "local.unreachable":
        return "the replication log cannot be reached"
    if failure.code.startswith("blob."):
        return failure.message  # its context names places inside
    return str(failure)


def hint_of(failure: FleetError) -> str:
    """Return what a pusher can do about a failure."""
    if failure.code.startswith("blob."):
        return "small pushes do not need it; try again soon, or tell the operators"
    return failure.hint


def cut(text: bytes, size: int = MAX_TEXT_BYTES) -> bytes:
    """Return a UTF-8 text of at most that many bytes."""
    if len(text) <= size:
        return text
    return text[: size - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT


def cut_texts_of_errors() -> None:
    """Have every error that Mercurial answers with cut to what its answer has room for, a hook's included."""
    plain = bundle2.bundlepart.__init__

    def init(
        self: Any,
        parttype: bytes,
        mandatoryparams: Any = (),
        advisoryparams: Any = (),
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if parttype.startswith(b"error:"):
            mandatoryparams = [(name, cut(value)) for name, value in mandatoryparams]
            advisoryparams = [(name, cut(value)) for name, value in advisoryparams]
        plain(self, parttype, mandatoryparams, advisoryparams, *args, **kwargs)

    bundle2.bundlepart.__init__ = init
