"""A process dies at each named point of a push: the next push works, nothing is half, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.invariants import check_repository
from tests.support.repositories import WorkingCopy

BEFORE_APPEND = ("push-before-checks", "push-before-append")
UNDECIDED = ("push-handed-over",)
AFTER_APPEND = ("push-after-append", "push-in-finalizer", "push-post-finalize")


@pytest.fixture
def work(fleet: Fleet, repository: str, tmp_path: Path) -> WorkingCopy:
    """A clone whose first changeset is pushed and whose second is not."""
    fleet.create(repository, "--non-publishing")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(repository)).ok()
    work.commit("second")
    work.run("bookmark", "moved").ok()
    return work


@pytest.mark.parametrize("point", BEFORE_APPEND)
def test_a_session_killed_before_the_append_changed_nothing(
    fleet: Fleet, repository: str, work: WorkingCopy, point: str
) -> None:
    fleet.set_fault(point, "kill")
    assert work.push(fleet.ssh_url(repository), "-B", "moved").status == 255
    assert not fleet.is_armed(point)
    assert len(check_repository(fleet, repository)) == 1

    work.push(fleet.ssh_url(repository), "-B", "moved").ok()

    assert len(check_repository(fleet, repository)) == 2


@pytest.mark.parametrize("point", UNDECIDED)
def test_a_session_killed_while_the_log_decides_is_settled_by_the_log(
    fleet: Fleet, repository: str, work: WorkingCopy, point: str
) -> None:
    fleet.set_fault(point, "kill")
    assert work.push(fleet.ssh_url(repository), "-B", "moved").status == 255
    assert not fleet.is_armed(point)

    again = work.push(fleet.ssh_url(repository), "-B", "moved")

    assert again.status == 0 or "no changes found" in again.text, again
    assert len(check_repository(fleet, repository)) == 2


@pytest.mark.parametrize("point", AFTER_APPEND)
def test_a_session_killed_after_the_append_leaves_a_push_that_stands(
    fleet: Fleet, repository: str, work: WorkingCopy, point: str
) -> None:
    fleet.set_fault(point, "kill")
    assert work.push(fleet.ssh_url(repository), "-B", "moved").status == 255
    assert not fleet.is_armed(point)

    again = work.push(fleet.ssh_url(repository), "-B", "moved")

    assert again.status == 1, again
    assert "no changes found" in again.text
    assert len(check_repository(fleet, repository)) == 2
    work.commit("third")
    work.push(fleet.ssh_url(repository)).ok()
    assert len(check_repository(fleet, repository)) == 3


@pytest.mark.parametrize("point", ["agent-before-append", "agent-after-append"])
def test_a_log_agent_killed_during_an_append_is_settled_by_the_next(
    fleet: Fleet, repository: str, work: WorkingCopy, point: str
) -> None:
    fleet.set_fault(point, "kill")
    first = work.push(fleet.ssh_url(repository), "-B", "moved")
    assert not fleet.is_armed(point)
    assert "Traceback" not in first.text

    again = work.push(fleet.ssh_url(repository), "-B", "moved")

    assert again.status == 0 or "no changes found" in again.text, again
    if "nothing was changed" in first.text:
        assert again.status == 0
    assert len(check_repository(fleet, repository)) == 2


@pytest.mark.parametrize(
    "point",
    [
        "apply-before-transaction",
        "apply-before-close",
        "apply-after-close",
        "applier-before-expose",
        "applier-after-expose",
        "coordinator-before-decision",
        "coordinator-after-decision",
    ],
)
def test_a_mirror_or_coordinator_killed_on_the_way_catches_up_by_itself(
    fleet: Fleet, repository: str, work: WorkingCopy, point: str
) -> None:
    fleet.set_fault(point, "kill")
    work.push(fleet.ssh_url(repository), "-B", "moved").ok()
    fleet.wait(lambda: not fleet.is_armed(point), f"a process died at {point}")
    assert len(check_repository(fleet, repository)) == 2


@pytest.mark.parametrize("role", ["log-agent", "sessions", "ssh", "applier", "web", "coordinator"])
def test_each_process_killed_between_pushes_is_replaced(
    fleet: Fleet, repository: str, work: WorkingCopy, role: str
) -> None:
    fleet.kill_child(role)

    def pushes_again() -> bool:
        outcome = work.push(fleet.ssh_url(repository), "-B", "moved")
        assert "Traceback" not in outcome.text
        return outcome.status == 0 or "no changes found" in outcome.text

    fleet.wait(pushes_again, f"a push works after {role} was killed")
    assert len(check_repository(fleet, repository)) == 2


def test_the_whole_fleet_killed_with_all_children_keeps_everything(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    work.push(fleet.ssh_url(repository)).ok()
    work.commit("third")
    fleet.set_fault("push-after-append", "stall")
    push = work.hg.start("push", "-f", fleet.ssh_url(repository), cwd=work.directory)
    fleet.wait_stalled("push-after-append")

    fleet.kill()
    push.communicate(timeout=60)
    fleet.clear_fault("push-after-append")
    fleet.start()

    again = work.push(fleet.ssh_url(repository))
    assert "no changes found" in again.text
    assert len(check_repository(fleet, repository)) == 3
