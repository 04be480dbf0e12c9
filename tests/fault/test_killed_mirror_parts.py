"""A kill -9 or a full disk between any two steps of applying, exposing and deciding: all copies converge."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.support.mirror_fleet import MirrorFleet, Repository, use_agent

_numbers = count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorFleet]:
    directory = tmp_path_factory.mktemp("mirror-faults")
    use_agent(directory)
    fleet = MirrorFleet(directory)
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def fleet(running: MirrorFleet) -> MirrorFleet:
    """A fleet in health, whatever the test before left."""
    for process in running.processes:
        process.disarm_all()
        if not process.is_running:
            process.start()
    running.wait_ready()
    return running


@pytest.fixture
def repository(fleet: MirrorFleet) -> Repository:
    repository = fleet.create(f"faults/app{next(_numbers)}")
    fleet.push(repository)
    fleet.wait_exposed(repository)
    return repository


APPLY_POINTS = ("apply-before-transaction", "apply-before-close", "apply-after-close")


@pytest.mark.parametrize("point", APPLY_POINTS)
def test_an_apply_worker_killed_at_a_named_point_is_replaced(
    fleet: MirrorFleet, repository: Repository, point: str
) -> None:
    applier = fleet.mirrors[0].process
    pid = applier.pid
    applier.arm(point, "kill")
    fleet.push(repository, 3)
    fleet.wait(lambda: applier.has_reached(point), f"a worker dies at {point}")
    fleet.assert_converged(repository)
    assert applier.is_running
    assert applier.pid == pid, "the applier itself goes on"


@pytest.mark.parametrize("point", APPLY_POINTS[:2])
def test_a_disk_that_is_full_for_a_moment_parks_nothing(
    fleet: MirrorFleet, repository: Repository, point: str
) -> None:
    mirror = fleet.mirrors[0]
    mirror.process.arm(point, "enospc")
    fleet.push(repository, 2)
    fleet.wait(lambda: mirror.process.has_reached(point), f"the disk is full at {point}")
    fleet.assert_converged(repository)


@pytest.mark.parametrize("point", APPLY_POINTS)
def test_an_applier_killed_while_its_worker_stands_in_the_middle_goes_on_after_a_restart(
    fleet: MirrorFleet, repository: Repository, point: str
) -> None:
    applier = fleet.mirrors[0].process
    applier.arm(point, "stall")
    fleet.push(repository, 2)
    fleet.wait(lambda: applier.has_reached(point), f"a worker stands at {point}")
    applier.kill()
    applier.disarm(point)
    applier.start()
    fleet.wait_ready()
    fleet.push(repository)
    fleet.assert_converged(repository)


@pytest.mark.parametrize("point", ["applier-before-expose", "applier-after-expose"])
def test_an_applier_killed_around_an_exposure_goes_on_after_a_restart(
    fleet: MirrorFleet, repository: Repository, point: str
) -> None:
    one, two = fleet.mirrors
    one.process.arm(point, "kill")
    fleet.push(repository, 2)
    one.process.restart()
    fleet.wait_exposed(repository, two)
    fleet.wait_ready()
    fleet.assert_converged(repository)


@pytest.mark.parametrize("point", ["coordinator-before-decision", "coordinator-after-decision"])
def test_a_coordinator_killed_around_a_decision_delays_exposure_only_until_its_restart(
    fleet: MirrorFleet, repository: Repository, point: str
) -> None:
    fleet.coordinator.arm(point, "kill")
    fleet.push(repository)
    fleet.coordinator.restart()
    fleet.push(repository)
    fleet.assert_converged(repository)
    assert all(mirror.is_ready for mirror in fleet.mirrors), "nobody was evicted for the coordinator's death"


def test_everything_killed_at_once_in_the_middle_of_pushes_converges_after_a_restart(
    fleet: MirrorFleet, repository: Repository
) -> None:
    fleet.push(repository, 20)
    for process in fleet.processes:
        process.kill()
    for process in fleet.processes:
        process.start()
    fleet.wait_agent()
    fleet.wait_ready()
    fleet.push(repository)
    fleet.assert_converged(repository)
