"""Mirrors apply on their own and show together: real agent, coordinator, appliers and workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mirror_fleet import MirrorFleet, use_agent


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorFleet]:
    directory = tmp_path_factory.mktemp("mirrors")
    use_agent(directory)
    fleet = MirrorFleet(directory)
    try:
        yield fleet.start()
    finally:
        fleet.close()


def test_a_push_is_shown_by_every_mirror(fleet: MirrorFleet) -> None:
    repository = fleet.create("team/app")
    fleet.push(repository, 3)
    fleet.assert_converged(repository)
