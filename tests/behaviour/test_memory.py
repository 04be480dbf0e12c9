"""Four thousand small messages through one mirror: nobody whom they pass keeps them.

What grows more slowly only `make bench BENCH_ARGS=memory` finds, which sends a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.agents import short_directory
from tests.support.mirror_fleet import MirrorFleet, use_agent
from tests.support.small_messages import measure_memory

MESSAGES = 4_000
MOST_BYTES = 2000.0  # per message, in the second half: allocators breathe; a message kept as objects is more


@pytest.fixture
def fleet() -> Iterator[MirrorFleet]:
    with short_directory() as directory:
        use_agent(directory)
        fleet = MirrorFleet(directory, mirrors=1).start()
        yield fleet
        fleet.close()


def test_the_log_agent_the_applier_and_its_workers_keep_no_messages(fleet: MirrorFleet) -> None:
    """One repository, so that the agent's few newest records of each partition are complete at half-time."""
    half, end = measure_memory(fleet, repositories=1, messages=MESSAGES, samples=2)
    grown = end.growth_since(half)
    assert max(grown.values()) < MOST_BYTES, (grown, half, end)
