"""A mirror's seat: first on disk, then said; the lease counts from sending."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.serving_file import Serving, read_serving, write_serving
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Heartbeat, Member, Stage
from hgfleet.model.ids import HostName, Offset
from hgfleet.replication.mirror_member import MirrorMember
from hgfleet.replication.mirror_reports import Published, Reports

HOST = HostName("mirror1")


class Seat:
    """A member with its file, whose words can be looked at."""

    def __init__(self, directory: Path, notice_seconds: float = 0.0) -> None:
        self.file = directory / "serving.json"
        self.reports = Reports(LogAgentClient(directory / "no.sock"), lambda _answer: None)
        self.member = MirrorMember(HOST, self.file, 5.0, self.reports, notice_seconds)

    @property
    def serving(self) -> Serving:
        serving = read_serving(self.file)
        assert serving is not None
        return serving

    def published(self, sent_at: float) -> Published:
        """Return what the log answers to the heartbeat that waits."""
        assert self.member.member is not None
        key = Heartbeat(self.member.member, Stage.JOINING).key
        return Published({key: {}}, sent_at, Offset(1))


@pytest.fixture
def seat(tmp_path: Path) -> Seat:
    seat = Seat(tmp_path)
    seat.member.restart("1.0")
    return seat


def test_a_new_mirror_refuses_and_joins_as_its_first_incarnation(seat: Seat) -> None:
    assert seat.serving.stage is Stage.JOINING
    assert seat.member.join(FleetView(), 0.0) == Member(HOST, 1)
    assert (seat.serving.stage, seat.serving.incarnation) == (Stage.JOINING, 1)


def test_an_incarnation_is_never_used_twice_not_even_on_a_new_disk(seat: Seat, tmp_path: Path) -> None:
    view = FleetView()
    view.take(f"member/{HOST}/7", {"stage": "serving"}, Offset(0))
    assert seat.member.join(view, 0.0).incarnation == 8
    again = Seat(tmp_path)
    again.member.restart("1.0")
    assert again.member.join(FleetView(), 0.0).incarnation == 9


def test_a_refusal_that_cannot_be_written_is_not_followed_by_a_join(seat: Seat) -> None:
    seat.file.unlink()
    seat.file.mkdir()
    with pytest.raises(IsADirectoryError):
        seat.member.join(FleetView(), 0.0)
    assert seat.member.membership is None
    assert seat.reports.is_idle


def test_the_lease_counts_from_the_sending_of_what_was_acknowledged(seat: Seat) -> None:
    seat.member.join(FleetView(), 100.0)
    seat.member.beat(100.0)
    seat.member.acknowledge(seat.published(100.0), 101.0)
    seat.member.serve(101.0)
    assert (seat.serving.stage, seat.serving.lease_ends_at) == (Stage.SERVING, 105.0)
    seat.member.acknowledge(seat.published(103.0), 103.5)
    assert seat.serving.lease_ends_at == 108.0
    seat.member.acknowledge(seat.published(104.0), 109.5)
    assert seat.serving.lease_ends_at == 108.0, "too late to renew"


def test_an_answer_to_other_words_renews_nothing(seat: Seat) -> None:
    seat.member.join(FleetView(), 100.0)
    seat.member.acknowledge(seat.published(100.0), 100.0)
    seat.member.serve(100.0)
    seat.member.acknowledge(Published({"report/mirror1/1/x": {}}, 104.0, Offset(2)), 104.0)
    assert seat.serving.lease_ends_at == 105.0


@pytest.mark.parametrize(
    ("before", "after"), [(Stage.SERVING, Stage.SERVING), (Stage.DRAINING, Stage.JOINING)]
)
def test_a_restarted_mirror_is_not_ready_but_a_last_resort_if_it_was_serving(
    tmp_path: Path, before: Stage, after: Stage
) -> None:
    write_serving(tmp_path / "serving.json", before, 3, 1e12)
    seat = Seat(tmp_path)
    seat.member.restart("1.0")
    assert (seat.serving.stage, seat.serving.incarnation) == (after, 3)
    assert not seat.serving.is_ready()


def test_a_mirror_that_leaves_refuses_and_says_so(seat: Seat) -> None:
    seat.member.join(FleetView(), 0.0)
    seat.member.drain()
    assert seat.serving.stage is Stage.DRAINING
    assert not seat.reports.is_idle


def test_an_abandoned_incarnation_says_nothing_more(seat: Seat) -> None:
    seat.member.join(FleetView(), 0.0)
    seat.member.abandon()
    seat.member.beat(10.0)
    assert seat.reports.is_idle
    assert seat.member.join(FleetView(), 11.0).incarnation == 2


def test_a_mirror_that_stands_aside_refuses_says_so_once_and_never_beats_again(seat: Seat) -> None:
    seat.member.join(FleetView(), 0.0)

    assert seat.member.stand_aside(1.0)
    assert seat.serving.stage is Stage.DRAINING
    seat.member.acknowledge(seat.published(1.0), 1.0)

    assert not seat.member.stand_aside(2.0)
    assert seat.serving.stage is Stage.DRAINING


def test_a_restarted_mirror_that_shall_stand_aside_is_no_last_resort(tmp_path: Path) -> None:
    write_serving(tmp_path / "serving.json", Stage.SERVING, 3, 1e12)
    seat = Seat(tmp_path)
    seat.member.restart("1.0")

    assert seat.member.stand_aside(0.0)

    assert seat.serving.stage is Stage.DRAINING
    assert seat.reports.is_idle, "it has not joined, so there is nobody to tell"


def test_what_has_served_is_remembered_over_joins_and_restarts(seat: Seat, tmp_path: Path) -> None:
    seat.member.join(FleetView(), 0.0)
    assert not seat.serving.has_served
    seat.member.acknowledge(seat.published(0.0), 0.0)
    seat.member.serve(0.0)
    seat.member.join(FleetView(), 10.0)
    assert (seat.serving.stage, seat.serving.has_served) == (Stage.JOINING, True)
    again = Seat(tmp_path)
    again.member.restart("1.0")
    assert again.serving.has_served


def test_a_lapsed_mirror_is_left_by_readers_only_when_the_load_balancer_must_have_noticed(
    tmp_path: Path,
) -> None:
    seat = Seat(tmp_path, notice_seconds=4.0)
    seat.member.restart("1.0")
    assert seat.member.is_left(0.0), "nobody comes to a mirror that has not served"
    seat.member.join(FleetView(), 100.0)
    seat.member.acknowledge(seat.published(100.0), 100.0)
    seat.member.serve(100.0)
    assert seat.serving.lease_ends_at == 105.0
    assert not seat.member.is_left(105.0)
    assert not seat.member.is_left(108.9)
    assert seat.member.is_left(109.0)
