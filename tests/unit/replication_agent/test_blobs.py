"""The agent and its blob store: what broken puts left goes away, and a broken store disturbs nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgfleet.adapters.directory_blobs import DirectoryBlobs
from hgfleet.errors import TransientError
from tests.support.agents import AgentPlace, create_repository, push, running_agent, short_directory
from tests.support.waiting import wait_until


@pytest.fixture
def place() -> Iterator[AgentPlace]:
    with short_directory() as directory:
        yield AgentPlace(directory)


def test_what_killed_puts_left_is_removed_once_it_is_old(place: AgentPlace) -> None:
    incoming = place.directory / "blobs" / "incoming"
    incoming.mkdir(parents=True)
    old, young = incoming / "old", incoming / "young"
    for draft in (old, young):
        draft.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    log = place.open_log()
    with running_agent(place.options(log, log.log_id)):
        wait_until(lambda: not old.exists(), what="the old draft is removed")
    assert young.exists()
    log.close()


class BrokenBlobs(DirectoryBlobs):
    """A store that cannot be asked."""

    asked = 0

    def clean_up(self, older_than_seconds: float) -> int:
        self.asked += 1
        raise TransientError("blob.unavailable", "the blob store cannot be reached")


def test_a_store_that_cannot_be_asked_keeps_no_agent_from_serving(place: AgentPlace, tmp_path: Path) -> None:
    log, blobs = place.open_log(), BrokenBlobs(tmp_path)
    with running_agent(place.options(log, log.log_id, blobs=blobs)), place.client() as client:
        wait_until(lambda: blobs.asked, what="the store was asked")
        push(client, create_repository(client), "one")
    log.close()
