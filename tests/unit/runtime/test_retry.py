"""Retrying: bounded, and only what may succeed later."""

from __future__ import annotations

import pytest

from hgfleet.errors import InDoubtError, RejectedError, TransientError
from hgfleet.runtime.retry import Backoff, retry


class Flaky:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "done"


def quick() -> Backoff:
    return Backoff(0.001, 0.004)


def test_what_may_succeed_later_is_tried_again() -> None:
    call = Flaky(TransientError("a", "busy"), TransientError("a", "busy"))
    assert retry(call, timeout_seconds=5, backoff=quick()) == "done"
    assert call.calls == 3


@pytest.mark.parametrize("failure", [RejectedError("a", "no"), InDoubtError("a", "maybe")])
def test_a_refusal_or_a_doubt_is_never_tried_again(failure: Exception) -> None:
    call = Flaky(failure)
    with pytest.raises(type(failure)):
        retry(call, timeout_seconds=5, backoff=quick())
    assert call.calls == 1


def test_the_last_failure_is_raised_when_the_time_is_over() -> None:
    call = Flaky(*[TransientError("a", f"busy {n}") for n in range(10_000)])
    with pytest.raises(TransientError, match="busy"):
        retry(call, timeout_seconds=0.05, backoff=quick())
    assert call.calls > 1


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_reset() -> None:
    backoff = Backoff(1, 5)
    assert [backoff.next_pause() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next_pause() == 1
