"""Killed between any two steps of making, trimming and restoring; blobs lost; repositories deleted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hgfleet.model.ids import Digest
from tests.behaviour.test_snapshots import RETENTION, begin_again, is_trimmed, snapshots, wait_trimmed
from tests.support.agents import short_directory
from tests.support.mirror_fleet import MirrorFleet, use_agent

MAKING = ("snapshot-before-making", "snapshot-before-blob", "snapshot-after-blob", "snapshot-before-message")
TRIMMING = ("retention-before-checkpoint", "retention-before-drop", "retention-after-drop")


@pytest.fixture
def fleet() -> Iterator[MirrorFleet]:
    with short_directory() as directory:
        use_agent(directory)
        fleet = MirrorFleet(directory, mirrors=1, retention=RETENTION).start()
        yield fleet
        fleet.close()


def stored_snapshots(fleet: MirrorFleet) -> set[str]:
    """Return the blobs that are snapshots, named by a message or not."""
    found = set()
    for path in (fleet.directory / "blobs").glob("[0-9a-f][0-9a-f]/*/*"):
        with suppress(FileNotFoundError):
            if path.read_bytes().startswith(b"hgfleet-snapshot/"):
                found.add(path.name)
    return found


def test_a_maker_killed_at_each_step_leaves_nothing_that_stays(fleet: MirrorFleet) -> None:
    [mirror] = fleet.mirrors
    backup = add_blob_from_before_the_log(fleet)
    for point in MAKING:
        mirror.process.arm(point, "kill")
    repository = fleet.create("app")
    fleet.push(repository, 3)
    for point in MAKING:
        fleet.wait(lambda p=point: mirror.process.has_reached(p), f"{point} kills", 60)
        mirror.process.restart()
    mirror.process.arm("snapshot-before-blob", "enospc")
    wait_trimmed(fleet, repository)
    mirror.process.disarm_all()
    fleet.assert_converged(repository)
    assert not (mirror.home / "spool" / "snapshot").exists()
    fleet.wait(
        lambda: stored_snapshots(fleet) == {one.blob.sha256 for one in snapshots(fleet, repository)},
        "the store has the snapshots in force and no others",
        60,
    )
    assert backup.exists()


def add_blob_from_before_the_log(fleet: MirrorFleet) -> Path:
    """Store what no message names yet: a backup from which the fleet is going to be filled."""
    data = b"of another log"
    sha256 = hashlib.sha256(data).hexdigest()
    path = fleet.directory / "blobs" / sha256[:2] / sha256[2:4] / sha256
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    a_while_ago = path.stat().st_mtime - 3600
    os.utime(path, (a_while_ago, a_while_ago))
    return path


def test_an_agent_killed_at_each_step_of_trimming_goes_on(fleet: MirrorFleet) -> None:
    for point in TRIMMING:
        fleet.agent.arm(point, "kill")
    repository = fleet.create("app")
    fleet.push(repository, 3)
    for point in TRIMMING:
        fleet.wait(lambda p=point: fleet.agent.has_reached(p), f"{point} kills", 90)
        fleet.agent.restart()
        fleet.wait_agent()
        fleet.push(repository)
    wait_trimmed(fleet, repository)
    fleet.agent.kill()
    for path in fleet.directory.glob("index.sqlite*"):
        path.unlink()
    fleet.agent.start()
    fleet.wait_agent()
    fleet.push(repository)
    begin_again(fleet.mirrors[0])
    fleet.assert_converged(repository)


def test_a_lost_newest_snapshot_is_passed_over_and_a_deleted_repository_holds_nothing_back(
    fleet: MirrorFleet,
) -> None:
    [mirror] = fleet.mirrors
    kept, gone = fleet.create("kept"), fleet.create("gone")
    fleet.push(kept, 3)
    fleet.push(gone, 2)
    fleet.wait(lambda: snapshots(fleet, gone) and snapshots(fleet, kept), "both have a snapshot", 60)
    mirror.process.arm("snapshot-before-message", "stall")
    fleet.push(gone, 1)
    fleet.delete(gone)
    mirror.process.disarm_all()
    wait_trimmed(fleet, kept)
    assert not snapshots(fleet, gone)
    newest = snapshots(fleet, kept)[0]
    mirror.process.kill()
    remove_blob(fleet, newest.blob.sha256)
    begin_again(mirror)
    fleet.wait(lambda: mirror.process.has_logged("applier.snapshot-unusable"), "it says so", 60)
    fleet.wait_ready()
    fleet.push(kept)
    fleet.assert_converged(kept)
    assert is_trimmed(fleet, kept)


def remove_blob(fleet: MirrorFleet, sha256: Digest) -> None:
    (fleet.directory / "blobs" / sha256[:2] / sha256[2:4] / sha256).unlink()
