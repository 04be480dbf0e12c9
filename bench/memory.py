"""Measures whether anything grows with the number of messages that pass through one mirror.

The log agent, the applier and its workers are real processes on the embedded log; the messages are made by
tests.support.small_messages. There is no plain Mercurial beside it: nothing of it stays between two pulls.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.series import Goal, Row, Series
from bench.setting import Setting
from tests.support.agents import short_directory
from tests.support.mirror_fleet import MirrorFleet, use_agent
from tests.support.small_messages import Memory, measure_memory

_MESSAGES, _QUICK_MESSAGES = 100_000, 400
_REPOSITORIES = 10
_SAMPLES = 20
_GOAL = Goal(200, "B")  # 100,000 messages: 20 MB at most, of what allocators do not give back


def measure_growth(setting: Setting) -> Iterator[Row]:
    """Yield by how many bytes per message each has grown in the second half of them."""
    messages = _QUICK_MESSAGES if setting.is_quick else _MESSAGES
    with short_directory() as directory:
        use_agent(directory)
        fleet = MirrorFleet(directory, mirrors=1).start()
        try:
            seen = measure_memory(fleet, _REPOSITORIES, messages, _SAMPLES)
        finally:
            fleet.close()
    middle, end = seen[len(seen) // 2 - 1], seen[-1]
    for name, grown in end.growth_since(middle).items():
        yield Row(
            "memory",
            f"{name}: resident memory per message, in the second half of {messages:,}",
            Series("B", (grown,)),
            goal=_GOAL,
            note=_describe(seen, name),
        )


def _describe(seen: list[Memory], name: str) -> str:
    sizes = [one.bytes_by_name[name] / 1e6 for one in seen]
    middle = len(sizes) // 2 - 1
    return f"{sizes[0]:.1f} MB at first, {sizes[middle]:.1f} MB at half-time, {sizes[-1]:.1f} MB at the end"
