"""Stop signals reach a daemon's loop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hgfleet.runtime.lifecycle import STOP_SIGNALS, stop_on_signals


@pytest.fixture(autouse=True)
def restored_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_signal_sets_the_event_and_nothing_else(number: signal.Signals) -> None:
    stop = stop_on_signals()
    assert not stop.is_set()

    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)

    assert stop.wait(5)
