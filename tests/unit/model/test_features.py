"""What a host of an older release cannot read is not appended while it is heard of."""

import pytest

from hgfleet.errors import RejectedError
from hgfleet.model.bundle_policy import Wanted
from hgfleet.model.features import FEATURE_LEVEL, check_readable, required_level
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Claim, Evict, Heartbeat, Member, Stage, Ticket
from hgfleet.model.ids import HostName, Offset
from hgfleet.model.message import Kind
from hgfleet.model.settings import BundleSettings, RepoSettings

A, B = HostName("a"), HostName("b")


def view_of(*records: Heartbeat | Claim | Evict) -> FleetView:
    view = FleetView()
    for number, record in enumerate(records):
        view.take(record.key, dict(record.value), Offset(number))
    return view


def beat(host: HostName, level: int, incarnation: int = 1) -> Heartbeat:
    return Heartbeat(Member(host, incarnation), Stage.SERVING, "0.1", level)


def test_no_kind_needs_more_than_this_release_reads() -> None:
    assert max(required_level(kind) for kind in Kind) <= FEATURE_LEVEL


def test_a_new_kind_waits_until_every_host_can_read_it() -> None:
    with pytest.raises(RejectedError, match="not every host can read") as refused:
        check_readable(Kind.SNAPSHOT, {A: FEATURE_LEVEL, B: 0})
    assert (refused.value.code, refused.value.hint) == ("feature.not-everywhere", "upgrade b first")
    check_readable(Kind.SNAPSHOT, {A: FEATURE_LEVEL, B: FEATURE_LEVEL})


def test_what_the_first_release_knew_waits_for_nobody() -> None:
    check_readable(Kind.PUSH, {A: 0})


def test_settings_wait_only_for_those_who_cannot_read_what_they_say() -> None:
    plain = {"settings": RepoSettings().to_json()}
    with_bundles = {"settings": RepoSettings(bundles=BundleSettings(Wanted.ON)).to_json()}

    check_readable(Kind.SETTINGS, {A: 0}, plain)
    check_readable(Kind.CREATED, {A: 2}, with_bundles)
    with pytest.raises(RejectedError, match="not every host can read"):
        check_readable(Kind.SETTINGS, {A: 1}, with_bundles)
    assert required_level(Kind.SITE, with_bundles) == 0


def test_a_host_counts_with_the_oldest_release_that_runs_there() -> None:
    view = view_of(beat(A, 1), beat(A, 0, incarnation=2), beat(B, 1))
    assert view.feature_levels() == {A: 0, B: 1}


def test_a_host_that_was_counted_out_holds_nothing_up() -> None:
    claim = Claim(A, "life")
    evict = Evict(Ticket(Offset(1), 1), Member(B, 1))
    assert view_of(beat(B, 0), claim, evict).feature_levels() == {}
