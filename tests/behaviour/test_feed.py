"""The feed: what all mirrors show enters it, once and in order, whoever is killed meanwhile."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.feeds import check_complete, counted, entered, feed_rows
from tests.support.fleet import Fleet
from tests.support.invariants import get
from tests.support.repositories import WorkingCopy

SLOW = "mirror2"


@pytest.fixture
def work(two_mirrors: Fleet, repository: str, tmp_path: Path) -> WorkingCopy:
    """A working copy of a new repository."""
    two_mirrors.create(repository)
    work = WorkingCopy.init(two_mirrors.client(), tmp_path / "work")
    work.commit("first")
    work.push(two_mirrors.ssh_url(repository)).ok()
    return work


def wait_entered(fleet: Fleet, path: str, seq: int) -> list[dict[str, Any]]:
    fleet.wait(lambda: [row["seq"] for row in entered(fleet, path)][-1:] == [seq], f"{path} {seq} enters")
    return entered(fleet, path)


def test_nothing_enters_before_both_mirrors_show_it_and_then_it_enters_in_order(
    two_mirrors: Fleet, repository: str, work: WorkingCopy
) -> None:
    wait_entered(two_mirrors, repository, 2)
    with two_mirrors.paused("applier", SLOW):
        nodes = []
        for number in range(3):
            nodes.append(work.commit(f"more {number}"))
            work.push(two_mirrors.ssh_url(repository)).ok()
        fast = two_mirrors.mirror_names()[0]
        two_mirrors.wait(
            lambda: _applied(two_mirrors, repository, fast) == 5, "the other mirror applies the pushes"
        )
        assert [row["seq"] for row in entered(two_mirrors, repository)] == [1, 2]
    rows = wait_entered(two_mirrors, repository, 5)
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["body"]["push_id"] for row in rows[1:]] == [1, 2, 3, 4]
    assert [row["body"]["heads_added"] for row in rows[2:]] == [[node] for node in nodes]
    assert {row["body"]["pusher"] for row in rows[1:]} == {two_mirrors.endpoints["account"]}


def test_the_catalogue_tells_of_a_repository_before_its_pushes_and_when_it_is_gone(
    two_mirrors: Fleet, repository: str, work: WorkingCopy
) -> None:
    wait_entered(two_mirrors, repository, 2)
    two_mirrors.cli("repo", "rename", repository, f"{repository}-new").ok()
    work.commit("second")
    work.push(two_mirrors.ssh_url(f"{repository}-new")).ok()
    wait_entered(two_mirrors, f"{repository}-new", 3)
    two_mirrors.cli("repo", "delete", f"{repository}-new", "--yes").ok()
    two_mirrors.wait(lambda: "unbind" in _story(two_mirrors, repository), "the deletion enters")
    assert _story(two_mirrors, repository) == ["bind", "created", "push", "rename", "push", "unbind"]


def test_tail_prints_what_enters_as_lines_and_as_json(
    two_mirrors: Fleet, repository: str, work: WorkingCopy
) -> None:
    wait_entered(two_mirrors, repository, 2)
    command = ("log", "tail", repository, "--topic", "pushdataaggregator")
    tails = [two_mirrors.start_cli(*command), two_mirrors.start_cli(*command, "--json")]
    try:
        while not all(_has_printed(tail) for tail in tails):
            work.commit(f"more {work.node()}")
            work.push(two_mirrors.ssh_url(repository)).ok()
        text, value = (tail.stdout.readline().decode() for tail in tails if tail.stdout)
    finally:
        for tail in tails:
            tail.send_signal(signal.SIGINT)
            tail.communicate(timeout=20)
    assert re.search(rf"turn +\d+  {repository} seq \d+  push  .* push \d+ by ", text)
    row = json.loads(value)
    assert (row["path"], row["kind"], row["is_gap"]) == (repository, "push", False)


@pytest.mark.parametrize("point", ["feed-before-append", "feed-after-append"])
def test_a_coordinator_killed_at_an_append_loses_and_repeats_nothing(
    two_mirrors: Fleet, repository: str, work: WorkingCopy, point: str
) -> None:
    wait_entered(two_mirrors, repository, 2)
    before = two_mirrors.child("coordinator")
    two_mirrors.set_fault(point, "kill")
    for number in range(3):
        work.commit(f"more {number}")
        work.push(two_mirrors.ssh_url(repository)).ok()
    two_mirrors.wait_replaced(before)
    wait_entered(two_mirrors, repository, 5)
    check_complete(two_mirrors)


def test_a_feed_that_hangs_delays_no_exposure_and_is_told(
    two_mirrors: Fleet, repository: str, work: WorkingCopy
) -> None:
    wait_entered(two_mirrors, repository, 2)
    two_mirrors.set_fault("feed-before-append", "stall")
    try:
        work.commit("second")
        assert "visible on all 2 mirrors" in work.push(two_mirrors.ssh_url(repository)).ok().text
        two_mirrors.wait_stalled("feed-before-append")
        assert [row["seq"] for row in entered(two_mirrors, repository)] == [1, 2]
        two_mirrors.wait(lambda: _feed(two_mirrors)["behind"] >= 1, "it is said")
    finally:
        two_mirrors.clear_fault("feed-before-append")
    wait_entered(two_mirrors, repository, 3)


def test_a_restart_of_the_whole_fleet_repeats_nothing(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet")
    try:
        fleet.start()
        fleet.create("app")
        work = WorkingCopy.init(fleet.client(), tmp_path / "work")
        work.commit("first")
        work.push(fleet.ssh_url("app")).ok()
        wait_entered(fleet, "app", 2)
        told = [(row["repository"], row["seq"]) for row in counted(feed_rows(fleet))]
        fleet.stop()
        fleet.start()
        work.commit("second")
        work.push(fleet.ssh_url("app")).ok()
        wait_entered(fleet, "app", 3)
        rows = counted(feed_rows(fleet))
        assert [(row["repository"], row["seq"]) for row in rows][: len(told)] == told
        check_complete(fleet)
        assert fleet.cli_json("status")["feed"]["behind"] == 0
        assert (
            "hgfleet_feed_behind_seconds 0.0"
            in get(fleet, f"{fleet.endpoints['admin']}/-/metrics")[1].decode()
        )
    finally:
        fleet.close()


def _feed(fleet: Fleet) -> dict[str, Any]:
    feed: dict[str, Any] = fleet.cli_json("status")["feed"]
    return feed


def _applied(fleet: Fleet, path: str, host: str) -> int:
    copies = fleet.cli_json("repo", "show", path)["copies"]
    [seq] = [copy["seq"] for copy in copies if copy["host"] == host]
    return int(seq)


def _story(fleet: Fleet, path: str) -> list[str]:
    """Return the kinds of what counts of the repository that once was at a path, in the feed's order."""
    rows = counted(feed_rows(fleet))
    [repository] = [
        row["body"]["repository"] for row in rows if row["kind"] == "bind" and row["body"]["path"] == path
    ]
    return [row["kind"] for row in rows if repository in (row["repository"], row["body"].get("repository"))]


def _has_printed(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether it prints something soon."""
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0.5)[0])
