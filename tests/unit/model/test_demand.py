"""What hosts count of clones adds up, survives the state topic, and forgets who has fallen silent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgfleet.model.demand import (
    DAY_SECONDS,
    MOST_ROWS,
    CloneReason,
    Demand,
    DemandCount,
    DemandKey,
    clones_a_day,
    total,
)
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import parse_record
from hgfleet.model.ids import HostName, Offset, RepoId

ONE, OTHER = RepoId("0" * 31 + "1"), RepoId("0" * 31 + "2")
NOW = 1_700_000_000.0

keys = st.builds(
    DemandKey,
    st.sampled_from([ONE, OTHER]),
    st.sampled_from(["", "ec2region=us-west-2", "ort=Köln"]),
    st.sampled_from(CloneReason),
)
counts = st.dictionaries(keys, st.builds(DemandCount, st.integers(0, 2**40), st.integers(0, 2**60)))
demands = st.builds(Demand, st.sampled_from([HostName("a"), HostName("b")]), st.just(NOW), counts)


@given(demands)
def test_a_record_is_read_back_as_it_was_said(demand: Demand) -> None:
    assert parse_record(demand.key, dict(demand.value)) == demand


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"at": True, "rows": []},
        {"at": NOW},
        {"at": NOW, "rows": [1]},
        {"at": NOW, "rows": [[ONE, "", "bundle", -1, 0]]},
        {"at": NOW, "rows": [[ONE, "", "bundle", True, 0]]},
        {"at": NOW, "rows": [[ONE, 7, "bundle", 1, 0]]},
        {"at": NOW, "rows": [[ONE, "", "of a later release", 1, 0]]},
        {"at": NOW, "rows": [["../etc", "", "bundle", 1, 0]]},
    ],
)
def test_a_damaged_record_is_none(value: object) -> None:
    assert parse_record("demand/a", value) is None


def test_a_host_with_very_many_repositories_says_the_most_cloned() -> None:
    many = {
        DemandKey(RepoId(f"{number:032x}"), "", CloneReason.BUNDLE): DemandCount(number, 1)
        for number in range(MOST_ROWS + 10)
    }
    said = parse_record("demand/a", dict(Demand(HostName("a"), NOW, many).value))
    assert isinstance(said, Demand)
    assert len(said.counts) == MOST_ROWS
    assert min(count.clones for count in said.counts.values()) == 10


def test_the_hosts_are_added_up_and_a_silent_one_is_left_out() -> None:
    key, tried = DemandKey(ONE, "", CloneReason.BUNDLE), DemandKey(ONE, "", CloneReason.TRIED)
    view = FleetView()
    said = [
        Demand(HostName("a"), NOW, {key: DemandCount(3, 30), tried: DemandCount(1, 10)}),
        Demand(HostName("b"), NOW, {key: DemandCount(1, 10)}),
        Demand(HostName("b"), NOW, {key: DemandCount(2, 20)}),
        Demand(HostName("gone"), NOW - DAY_SECONDS - 1, {key: DemandCount(100, 1)}),
    ]
    for number, demand in enumerate(said):
        view.take(demand.key, dict(demand.value), Offset(number))
    sums = total(view.demands(), NOW)
    assert sums == {key: DemandCount(5, 50), tried: DemandCount(1, 10)}
    assert clones_a_day(sums) == {ONE: 5}, "one that tried a bundle first was counted then"
