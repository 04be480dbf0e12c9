"""Operators see where clones come from, how they were served, and where a store is missing."""

from __future__ import annotations

import pytest

from hgfleet.cli.demand_rows import by_place, of_repository, print_demand
from hgfleet.model.demand import CloneReason, DemandCount, DemandKey
from hgfleet.model.ids import RepoId

ONE, OTHER = RepoId("0" * 31 + "1"), RepoId("0" * 31 + "2")
WEST, TOKYO = "ec2region=us-west-2", "ec2region=ap-northeast-1"
COUNTS = {
    DemandKey(ONE, WEST, CloneReason.BUNDLE): DemandCount(10, 1000),
    DemandKey(ONE, WEST, CloneReason.TRIED): DemandCount(2, 300),
    DemandKey(OTHER, f"{WEST}+fast", CloneReason.BYPASSED): DemandCount(1, 50),
    DemandKey(ONE, TOKYO, CloneReason.NO_BUNDLES): DemandCount(20, 4000),
    DemandKey(ONE, "", CloneReason.BUNDLE): DemandCount(1, 100),
}
STORES = ({"cdn": "true"}, {"ec2region": "us-west-2"})


def test_each_place_tells_what_was_served_how_the_busiest_first() -> None:
    tokyo, west, anywhere = by_place(COUNTS, STORES)
    assert (tokyo.location, tokyo.has_store, tokyo.clones) == (TOKYO, False, 20)
    assert (west.location, west.has_store, west.clones) == (WEST, True, 11)
    assert west.by_bundle == DemandCount(8, 800)
    assert west.from_origin == DemandCount(3, 350)
    assert (anywhere.location, anywhere.clones) == ("", 1)


def test_one_repository_is_told_alone() -> None:
    [place] = by_place(of_repository(COUNTS, OTHER), STORES)
    assert place.to_json() == {
        "location": WEST,
        "has_store": True,
        "clones": 1,
        "by_bundle": {"clones": 0, "bytes": 0},
        "from_origin": {"bypassed": {"clones": 1, "bytes": 50}},
    }


def test_people_read_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_demand(by_place(COUNTS, STORES))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [TOKYO, "no", "20", "0", "0", "20", "4,000", "no-bundles", "20"]
    assert lines[3].startswith("anywhere else")
    print_demand([])
    assert capsys.readouterr().out == "nobody has cloned anything within the last day\n"
