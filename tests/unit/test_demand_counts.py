"""What a host counts of clones is kept for a day, by any number of writers, and never in anybody's way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hgfleet.adapters.demand_counts import DemandCounts
from hgfleet.model.demand import DAY_SECONDS, CloneReason, DemandCount, DemandKey
from hgfleet.model.ids import RepoId

KEY = DemandKey(RepoId("0" * 31 + "1"), "ec2region=us-west-2", CloneReason.BUNDLE)
NOW = 1_700_000_000.0


def test_counts_of_a_day_are_added_up_and_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "demand.sqlite"
    for hours in (0, 1, 1, 23):
        DemandCounts(path).add(KEY, DemandCount(1, 10), NOW - hours * 3600)
    assert DemandCounts(path).last_day(NOW) == {KEY: DemandCount(4, 40)}
    assert DemandCounts(path).last_day(NOW + DAY_SECONDS - 2 * 3600) == {KEY: DemandCount(3, 30)}
    assert DemandCounts(path).last_day(NOW + DAY_SECONDS) == {}


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "demand.sqlite"

    def count() -> None:
        counts = DemandCounts(path)
        for _ in range(25):
            counts.add(KEY, DemandCount(1, 1), NOW)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert DemandCounts(path).last_day(NOW) == {KEY: DemandCount(100, 100)}


def test_a_damaged_file_is_said_once_and_begun_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "demand.sqlite"
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    counts = DemandCounts(path)
    counts.add(KEY, DemandCount(1, 1), NOW)
    counts.add(KEY, DemandCount(1, 1), NOW)
    assert counts.last_day(NOW) == {KEY: DemandCount(1, 1)}
    assert [record.message for record in caplog.records] == ["demand.not-counted"]


def test_a_directory_that_is_not_there_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = DemandCounts(tmp_path / "gone" / "demand.sqlite")
    counts.add(KEY, DemandCount(1, 1), NOW)
    assert counts.last_day(NOW) == {}
    assert len(caplog.records) == 1, "said once, not at every clone"
