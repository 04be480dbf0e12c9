"""Sleeps in an event loop; apart from the clock, whose importers should not have to pay for asyncio.

Does not: tell the time (runtime.clock).
"""

from __future__ import annotations

import asyncio


async def sleep(seconds: float) -> None:
    """Let others run for so long."""
    await asyncio.sleep(seconds)
