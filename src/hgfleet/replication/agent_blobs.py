"""Keeps the blob store tidy: what puts that broke off have left is removed, once it is old.

Promises: whatever is younger than a day is left alone, as it may be under way; a store that can't be asked is
asked again later and holds nobody up.
Does not: collect blobs that no message names.
"""

from __future__ import annotations

import asyncio
import logging

from hgfleet.errors import FleetError
from hgfleet.replication.agent_parts import AgentParts

OLD_SECONDS = 86400.0
PAUSE_SECONDS = 6 * 3600.0
logger = logging.getLogger("hgfleet.replication.agent_blobs")


async def clean_blobs_regularly(parts: AgentParts) -> None:
    """Clean up now and every few hours; ends only by cancellation."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            count = await loop.run_in_executor(parts.blob_pool, parts.options.blobs.clean_up, OLD_SECONDS)
            if count:
                logger.info("blobs.cleaned", extra={"removed": count})
        except FleetError as error:
            logger.info("blobs.not-cleaned", extra={"code": error.code, "reason": str(error)})
        await parts.view.until(lambda: False, PAUSE_SECONDS)
