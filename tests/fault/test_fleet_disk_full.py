"""A fleet whose disk fills up: pushes are refused in one line, reads go on, and space is the whole cure."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.full_disk import SmallDisk, small_disk
from tests.support.invariants import check_repository
from tests.support.repositories import WorkingCopy


def test_a_full_disk_refuses_pushes_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk("48m") as disk:
        fleet = Fleet(disk.path / "fleet")
        try:
            _fill_and_free(fleet.start(), disk, tmp_path)
        finally:
            fleet.close()


def _fill_and_free(fleet: Fleet, disk: SmallDisk, tmp_path: Path) -> None:
    path = fleet.create("tests/full")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    first = work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    work.commit("second", content="x" * 200_000)
    disk.fill()

    refused = work.push(fleet.ssh_url(path))

    assert refused.status == 255, refused
    assert "Traceback" not in refused.text
    clone = WorkingCopy.clone(work.hg, fleet.https_url(path), tmp_path / "meanwhile")
    assert clone.node("tip") == first
    disk.free()
    fleet.wait(lambda: _is_there(work, fleet.ssh_url(path)), "a push works once there is space again")
    assert len(check_repository(fleet, path)) == 2


def _is_there(work: WorkingCopy, url: str) -> bool:
    outcome = work.push(url)
    assert "Traceback" not in outcome.text
    return outcome.status == 0 or "no changes found" in outcome.text
