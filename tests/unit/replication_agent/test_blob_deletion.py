"""A blob that is put while the same one is deleted is put behind the deletion."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from hgfleet.model.ids import Digest
from hgfleet.replication.agent_retention import Retention

BLOB = Digest("ab" * 32)


def test_a_put_waits_for_the_deletion_of_the_same_blob_and_for_no_other() -> None:
    may_delete = threading.Event()
    done: list[str] = []

    def delete(_sha256: Digest) -> None:
        may_delete.wait(30)
        done.append("deleted")

    async def play(pool: ThreadPoolExecutor) -> None:
        options = SimpleNamespace(retention=None, blobs=SimpleNamespace(delete=delete))
        parts: Any = SimpleNamespace(options=options, view=None, blob_pool=pool)
        retention = Retention(parts)
        deleting = asyncio.create_task(retention._delete(BLOB))
        await asyncio.sleep(0)
        await retention.note_put(Digest("cd" * 32))
        putting = asyncio.create_task(retention.note_put(BLOB))
        await asyncio.sleep(0)
        assert not putting.done()
        may_delete.set()
        await putting
        done.append("put")
        await deleting
        await retention.note_put(BLOB)

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(play(pool))
    assert done == ["deleted", "put"]
