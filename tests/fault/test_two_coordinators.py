"""Coordinators on two hosts: one decides, the other stands by and takes over when the first is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hgfleet.adapters.agent_answers import FeedEnd, FeedItems, StateEnd, StateRecords
from hgfleet.cli.fleet_state import read_view
from hgfleet.model.feed import FeedReader, FeedVerdict
from hgfleet.model.feed_records import FeedEntry, decode_feed_record
from hgfleet.model.fleet import FleetView
from hgfleet.model.ids import HostName, Offset, RepoId
from hgfleet.runtime import clock
from tests.support.mirror_fleet import MirrorFleet, Process, Repository, use_agent
from tests.support.replication_process import LEASE_SECONDS

MARGIN_SECONDS = 4.0  # for a busy machine


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorFleet]:
    directory = tmp_path_factory.mktemp("coordinators")
    use_agent(directory)
    fleet = MirrorFleet(directory)
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def seats(running: MirrorFleet) -> Iterator[dict[str, Process]]:
    other = Process(running.directory, "coordinator", "other")
    try:
        yield {"primary": running.coordinator, "other": other}
    finally:
        if other.is_running:
            other.thaw()
            other.kill()


@pytest.fixture
def fleet(running: MirrorFleet, seats: dict[str, Process]) -> MirrorFleet:
    """Both run, and one of them holds the claim."""
    for process in seats.values():
        if not process.is_running:
            process.start()
    running.wait(lambda: is_calm(running), "one coordinator gives signs of life, and goes on to")
    return running


@pytest.fixture
def repository(fleet: MirrorFleet) -> Repository:
    repository = fleet.create(f"app{fleet.client.paths()[1]}")
    fleet.push(repository)
    fleet.wait_exposed(repository)
    return repository


def look(fleet: MirrorFleet) -> FleetView:
    return read_view(fleet.client)


def holder(fleet: MirrorFleet) -> HostName | None:
    sign = look(fleet).sign
    return sign.host if sign else None


def is_calm(fleet: MirrorFleet) -> bool:
    """Tell whether the claim's holder goes on giving signs for two leases without losing it."""
    first = look(fleet).sign
    if first is None or first.is_leaving:
        return False
    until = first.at + 2 * LEASE_SECONDS

    def is_decided() -> bool:
        sign = look(fleet).sign
        return sign is None or sign.claim != first.claim or sign.at >= until

    fleet.wait(is_decided, "the claim's holder gives a sign, or loses it")
    last = look(fleet).sign
    return last is not None and last.claim == first.claim


def standing_by(fleet: MirrorFleet) -> str:
    return "other" if holder(fleet) == "primary" else "primary"


def entered(fleet: MirrorFleet, repository: RepoId) -> list[int]:
    reader, found = FeedReader(), []
    with fleet.client.feed_follow(Offset(0)) as events:
        while not isinstance(event := events.next_event(10), FeedEnd):
            assert isinstance(event, FeedItems)
            for item in event.items:
                record = decode_feed_record(item.wire)
                verdict = reader.take(record, item.next_offset)
                assert verdict is not FeedVerdict.GAP
                if isinstance(record, FeedEntry) and verdict is FeedVerdict.COUNTS:
                    found += [int(record.seq)] if record.repository == repository else []
    return found


def state_records(fleet: MirrorFleet) -> list[tuple[str, Any, float]]:
    """Return key, value and time of every record of the state topic."""
    found: list[tuple[str, Any, float]] = []
    with fleet.client.state_follow() as events:
        while not isinstance(event := events.next_event(10), StateEnd):
            assert isinstance(event, StateRecords)
            found += [(item.key, item.value, item.at) for item in event.records]
    return found


def check_entered(fleet: MirrorFleet, repository: Repository) -> None:
    everything = list(range(1, repository.seq + 1))
    fleet.wait(lambda: entered(fleet, repository.id)[-1:] == everything[-1:], "the last push enters the feed")
    assert entered(fleet, repository.id) == everything


def test_killing_the_active_one_delays_exposure_and_feed_by_about_a_lease(
    fleet: MirrorFleet, seats: dict[str, Process], repository: Repository
) -> None:
    active, other = seats[str(holder(fleet))], standing_by(fleet)
    active.kill()
    killed_at = clock.now()
    fleet.push(repository, 3)
    fleet.wait(lambda: holder(fleet) == other, "the other takes over")
    fleet.wait_exposed(repository)
    assert clock.now() - killed_at < LEASE_SECONDS + MARGIN_SECONDS
    check_entered(fleet, repository)
    assert all(mirror.is_ready for mirror in fleet.mirrors), "nobody was evicted for the coordinator's death"


def test_one_that_stood_still_finds_itself_replaced_and_stands_by(
    fleet: MirrorFleet, seats: dict[str, Process], repository: Repository
) -> None:
    active, other = seats[str(holder(fleet))], standing_by(fleet)
    active.freeze()
    fleet.push(repository)
    fleet.wait(lambda: holder(fleet) == other, "the other takes over")
    active.thaw()
    fleet.push(repository)
    fleet.wait_exposed(repository)
    assert is_calm(fleet)
    assert holder(fleet) == other
    assert active.is_running
    check_entered(fleet, repository)


def test_a_clean_stop_hands_over_at_once(
    fleet: MirrorFleet, seats: dict[str, Process], repository: Repository
) -> None:
    active, other = seats[str(holder(fleet))], standing_by(fleet)
    before = look(fleet).claim
    active.stop()
    fleet.wait(lambda: look(fleet).claim > before, "the other claims")
    fleet.wait(lambda: holder(fleet) == other, "it gives a sign of life")
    records = state_records(fleet)
    signs = [(value, at) for key, value, at in records if key == f"coordinator/{before}" and value]
    [left_at] = [at for value, at in signs if value["is_leaving"]]
    claimed_at = max(at for key, _, at in records if key.startswith(f"claim/{other}/"))
    assert 0 <= claimed_at - left_at < LEASE_SECONDS / 2
    fleet.push(repository)
    fleet.wait_exposed(repository)
    check_entered(fleet, repository)
