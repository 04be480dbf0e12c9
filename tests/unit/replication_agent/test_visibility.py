"""Whom a push waits for, and whom it does not wait for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hgfleet.model.fleet import Visibility
from hgfleet.model.ids import HostName, Seq, new_repo_id
from hgfleet.replication.agent_visibility import VisibilityDesk

REPOSITORY = new_repo_id()
SLOW = HostName("slow")
NOBODY = Visibility(is_visible=False, mirrors=[], late=[])
LATE = Visibility(is_visible=False, mirrors=[SLOW], late=[SLOW])
SHOWN = Visibility(is_visible=True, mirrors=[SLOW], late=[])


@dataclass
class View:
    """A view whose waits end at once: settled, or as if the time were over."""

    now: Visibility
    shown: int = 0  # up to this seq everything is visible, whatever comes later
    waits_in_vain: list[bool] = field(default_factory=list)

    @property
    def fleet(self) -> View:
        return self

    def visible(self, _repository: Any, seq: int) -> Visibility:
        return SHOWN if seq <= self.shown else self.now

    async def until(self, condition: Callable[[], bool], _timeout_seconds: float) -> bool:
        is_settled = condition()
        self.waits_in_vain.append(not is_settled)
        return is_settled


@pytest.mark.parametrize("absent", [NOBODY, LATE], ids=["nobody in service", "a late mirror"])
def test_what_was_awaited_in_vain_is_not_awaited_again_until_it_is_there(absent: Visibility) -> None:
    view = View(absent)
    desk = VisibilityDesk(view)  # type: ignore[arg-type]
    for seq in (1, 2):
        asyncio.run(desk.wait(REPOSITORY, Seq(seq), 1.0))
    view.shown = 3
    assert asyncio.run(desk.wait(REPOSITORY, Seq(3), 1.0)).is_visible
    view.now = LATE
    asyncio.run(desk.wait(REPOSITORY, Seq(4), 1.0))

    assert view.waits_in_vain == [True, False, False, True]


def test_a_mirror_in_service_again_is_waited_for() -> None:
    view = View(NOBODY)
    desk = VisibilityDesk(view)  # type: ignore[arg-type]
    asyncio.run(desk.wait(REPOSITORY, Seq(1), 1.0))
    view.now = LATE
    asyncio.run(desk.wait(REPOSITORY, Seq(2), 1.0))

    assert view.waits_in_vain == [True, True]
