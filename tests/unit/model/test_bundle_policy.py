"""When bundles are made, kept and retired, and what people are told about it."""

from dataclasses import replace

import pytest

from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import (
    DEFAULT_KINDS,
    BundlePolicy,
    RepositoryFacts,
    Step,
    Wanted,
    decide,
    wanted_kinds,
)

NOW = 1_700_000_000.0
HOUR, DAY = 3600.0, 24 * 3600.0
ON, OFF, DEMAND = (BundlePolicy(wanted=wanted) for wanted in (Wanted.ON, Wanted.OFF, Wanted.DEMAND))
NEW = RepositoryFacts(changesets=1000, clones_a_day=0.0)
FRESH = replace(NEW, made_at=NOW - HOUR, made_changesets=1000, made_kinds=DEFAULT_KINDS)


def test_a_repository_without_bundles_gets_them_when_they_are_on() -> None:
    decision = decide(ON, NEW, NOW)
    assert (decision.step, decision.reason, decision.kinds) == (Step.MAKE, "it has none yet", DEFAULT_KINDS)


def test_fresh_bundles_are_kept() -> None:
    decision = decide(ON, replace(FRESH, changesets=1001), NOW)
    assert (decision.step, decision.reason) == (Step.KEEP, "1 hours old, 1 changesets behind")


def test_bundles_of_an_unchanged_repository_are_kept_however_old_they_are() -> None:
    assert decide(ON, replace(FRESH, made_at=NOW - 90 * DAY), NOW).step is Step.KEEP


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"changesets": 1020}, "it has grown by 20 changesets"),
        ({"changesets": 1001, "made_at": NOW - 2 * DAY}, "2 days old, 1 changesets behind"),
        ({"has_lost": True}, "an object is gone or damaged"),
        ({"changesets": 900}, "the repository has fewer changesets than its bundles"),
        ({"made_kinds": DEFAULT_KINDS - {BundleType.GZIP_V1}}, "these are missing: gzip-v1"),
    ],
)
def test_bundles_are_made_anew_for_a_reason(changes: dict[str, object], reason: str) -> None:
    decision = decide(ON, replace(FRESH, **changes), NOW)  # type: ignore[arg-type]
    assert (decision.step, decision.reason) == (Step.MAKE, reason)


def test_demand_makes_bundles_and_its_end_retires_them_after_a_while() -> None:
    assert decide(DEMAND, NEW, NOW).step is Step.NONE
    assert "0 clones a day" in decide(DEMAND, NEW, NOW).reason
    assert decide(DEMAND, replace(NEW, clones_a_day=10.0), NOW).step is Step.MAKE
    lately = replace(FRESH, demanded_at=NOW - 6 * DAY)
    assert decide(DEMAND, lately, NOW).step is Step.KEEP
    assert decide(DEMAND, replace(lately, demanded_at=NOW - 8 * DAY), NOW).step is Step.RETIRE


def test_demand_that_ended_long_ago_makes_no_first_bundles() -> None:
    assert decide(DEMAND, replace(NEW, demanded_at=NOW - DAY), NOW).step is Step.NONE


def test_what_is_switched_off_is_retired() -> None:
    assert (decide(OFF, FRESH, NOW).step, decide(OFF, FRESH, NOW).reason) == (Step.RETIRE, "switched off")
    assert decide(OFF, NEW, NOW).step is Step.NONE


def test_a_repository_without_public_changesets_has_no_bundles() -> None:
    assert decide(ON, replace(NEW, changesets=0), NOW).step is Step.NONE


def test_a_much_cloned_repository_is_compressed_as_hard_as_can_be() -> None:
    much = replace(FRESH, clones_a_day=500.0)
    assert wanted_kinds(ON, much) == DEFAULT_KINDS - {BundleType.ZSTD} | {BundleType.ZSTD_MAX}
    assert decide(ON, much, NOW).reason == "these are missing: zstd-max"
    was_much = replace(FRESH, made_kinds=wanted_kinds(ON, much))
    assert decide(ON, was_much, NOW).step is Step.KEEP
    only_gzip = replace(ON, kinds=frozenset({BundleType.GZIP_V1}))
    assert wanted_kinds(only_gzip, much) == {BundleType.GZIP_V1}
