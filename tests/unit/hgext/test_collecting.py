"""Memory is given back while a large changegroup passes."""

from __future__ import annotations

import gc

import pytest

from hgfleet.hgext import collecting as module
from hgfleet.hgext.collecting import collecting


class Cycle:
    """Garbage that only the collector finds."""

    alive = 0

    def __init__(self) -> None:
        Cycle.alive += 1
        self.self = self

    def __del__(self) -> None:
        Cycle.alive -= 1


def test_garbage_does_not_pile_up_behind_a_long_changegroup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COLLECTED_BYTES", 100)
    gc.disable()
    gc.freeze()  # what the whole test run has made so far is not looked through each time
    try:
        for _ in collecting(iter([b"x" * 10] * 1000)):
            Cycle()
            assert Cycle.alive <= 12
    finally:
        gc.unfreeze()
        gc.enable()
