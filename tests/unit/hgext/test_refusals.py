"""What a refusal says, and that it always fits into Mercurial's answer."""

from __future__ import annotations

import pytest
from mercurial import bundle2
from mercurial import ui as uimod

from hgfleet.errors import RejectedError, TransientError
from hgfleet.hgext.refusals import (
    MAX_TEXT_BYTES,
    cut,
    cut_texts_of_errors,
    hint_of,
    nothing_changed,
    reason_of,
)


@pytest.mark.parametrize("reason", ["short", "long" * 1000, "é" * 1000, "\udcff" * 300])
def test_nothing_was_changed_is_said_however_long_the_reason_is(reason: str) -> None:
    abort = nothing_changed(reason, "hint" * 1000)
    assert abort.message.endswith(b"; nothing was changed")
    assert len(abort.message) <= MAX_TEXT_BYTES
    assert len(abort.hint) <= MAX_TEXT_BYTES
    abort.message.decode()


def test_a_text_is_cut_between_characters() -> None:
    assert cut(b"short") == b"short"
    assert cut("ä".encode() * 10, 10) == "äää".encode() + b"..."


def test_a_pusher_is_told_nothing_about_places_inside() -> None:
    failure = TransientError(
        "blob.unavailable",
        "the blob store cannot be reached",
        hint="check s3.endpoint",
        reason="http://10.0.0.7",
    )
    assert reason_of(failure) == "the blob store cannot be reached"
    assert "s3" not in hint_of(failure)
    other = RejectedError("append.kind", "no such kind", hint="do this", kind="x")
    assert (reason_of(other), hint_of(other)) == ("no such kind (kind=x)", "do this")


def test_a_hooks_long_text_does_not_break_the_answer_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle2.bundlepart, "__init__", bundle2.bundlepart.__init__)
    cut_texts_of_errors()
    part = bundle2.bundlepart(b"error:abort", [(b"message", b"m" * 1000)], [(b"hint", b"h" * 256)])
    part.id = 1
    chunks = b"".join(part.getchunks(ui=uimod.ui()))
    assert b"m" * 200 in chunks
    assert b"h" * 200 in chunks
