"""Killed between any two steps of making, trimming and restoring; blobs lost; repositories deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hgfleet.hgext import adopt
from hgfleet.hgext.recovery import bring_up_to_date
from hgfleet.model.adoption import Adopted
from hgfleet.model.ids import Digest, RepoPath
from tests.behaviour.test_snapshots import RETENTION, begin_again, is_trimmed, snapshots, wait_trimmed
from tests.support.agents import short_directory
from tests.support.full_disk import small_disk
from tests.support.mirror_fleet import MirrorFleet, Repository, use_agent

MAKING = ("snapshot-before-making", "snapshot-before-blob", "snapshot-after-blob", "snapshot-before-message")
RESTORING = ("restore-before-transaction", "restore-before-switch")
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


def test_a_restore_that_is_killed_at_each_step_or_has_no_room_begins_again(fleet: MirrorFleet) -> None:
    [mirror] = fleet.mirrors
    repository = fleet.create("app")
    fleet.push(repository, 3)
    wait_trimmed(fleet, repository)
    for action in ("kill", "enospc"):
        for point in RESTORING:
            mirror.process.arm(point, action)
        begin_again(mirror)
        for point in RESTORING:
            fleet.wait(lambda p=point: mirror.process.has_reached(p), f"{point}: {action}", 60)
        fleet.wait_ready()
        fleet.assert_converged(repository)
    fleet.push(repository)
    fleet.assert_converged(repository)
    copy = mirror.hg_directory(repository.id).resolve().parent
    assert [path.name for path in copy.parent.iterdir() if path.is_dir() and not path.is_symlink()] == [
        copy.name
    ]


def test_a_restore_onto_a_full_disk_waits_for_room(fleet: MirrorFleet) -> None:
    [mirror] = fleet.mirrors
    repository = fleet.create("app")
    fleet.push(repository, 3, size_bytes=200_000)
    wait_trimmed(fleet, repository)
    mirror.process.kill()
    shutil.rmtree(mirror.home)
    with small_disk("16m") as disk:
        mirror.home.symlink_to(disk.path)
        mirror.process.arm("restore-before-transaction", "stall")
        mirror.process.start()
        fleet.wait(lambda: mirror.process.has_reached("restore-before-transaction"), "it restores", 60)
        disk.fill()
        mirror.process.disarm("restore-before-transaction")
        fleet.wait(lambda: mirror.process.has_logged("No space left"), "it says that there is no room", 60)
        assert mirror.exposed(repository.id) == 0
        disk.free()
        fleet.wait_ready()
        fleet.push(repository)
        fleet.assert_converged(repository)
        mirror.process.kill()


def test_of_two_makers_at_once_one_snapshot_is_in_force_and_the_other_s_blob_goes() -> None:
    with short_directory() as directory:
        use_agent(directory)
        fleet = MirrorFleet(directory, mirrors=2, retention=RETENTION).start()
        try:
            announce_the_same_state_twice(fleet)
        finally:
            fleet.close()


def announce_the_same_state_twice(fleet: MirrorFleet) -> None:
    """Hold one maker before it announces until it is the other's turn, and let both go on."""
    for mirror in fleet.mirrors:
        mirror.process.arm("snapshot-before-message", "stall")
    repository = fleet.create("app")
    fleet.push(repository, 2)
    for mirror in fleet.mirrors:
        fleet.wait(
            lambda m=mirror: m.process.has_reached("snapshot-before-message"),
            f"{mirror.name} has made one",
            60,
        )
    for mirror in fleet.mirrors:
        mirror.process.disarm("snapshot-before-message")
    for mirror in fleet.mirrors:
        fleet.wait(lambda m=mirror: m.process.has_logged('"snapshots.made"'), f"{mirror.name} goes on", 60)
    logged = [line for mirror in fleet.mirrors for line in mirror.process.text().splitlines()]
    made = [line for line in logged if '"snapshots.made"' in line]
    assert any('"is_in_force": true' in line for line in made), made
    wait_trimmed(fleet, repository)
    fleet.wait(
        lambda: stored_snapshots(fleet) == {one.blob.sha256 for one in snapshots(fleet, repository)},
        "the store has the snapshots in force and no others",
        60,
    )
    for mirror in fleet.mirrors:
        begin_again(mirror)
    fleet.wait_ready()
    fleet.assert_converged(repository)


def test_a_trimmed_log_that_lost_its_end_adopts_a_copy_and_snapshots_go_on_behind_the_reset(
    fleet: MirrorFleet,
) -> None:
    [mirror] = fleet.mirrors
    repository = fleet.create("app")
    fleet.push(repository, 3)
    wait_trimmed(fleet, repository)
    fleet.push(repository)
    fleet.assert_converged(repository)
    backup = back_up_log(fleet)
    fleet.push(repository, 2)
    fleet.assert_converged(repository)
    fleet.agent.kill()
    for path in fleet.directory.glob("log.sqlite*"):
        path.unlink()
    backup.rename(fleet.directory / "log.sqlite")
    fleet.agent.start()
    fleet.wait_agent()
    adopt_primary(fleet, repository)
    fleet.assert_converged(repository)
    reset = repository.seq
    begin_again(mirror)
    fleet.wait_ready()
    fleet.assert_converged(repository)
    fleet.push(repository)
    fleet.wait(lambda: is_covered(fleet, repository, reset), "two snapshots are behind the reset", 90)
    begin_again(mirror)
    fleet.wait_ready()
    fleet.push(repository)
    fleet.assert_converged(repository)


def back_up_log(fleet: MirrorFleet) -> Path:
    """Copy the log as a backup does."""
    target = fleet.directory / "backup.sqlite"
    with (
        closing(sqlite3.connect(fleet.directory / "log.sqlite")) as log,
        closing(sqlite3.connect(target)) as copy,
    ):
        log.backup(copy)
    return target


def adopt_primary(fleet: MirrorFleet, repository: Repository) -> None:
    """Do what `hgfleet log adopt --yes` does, and let the primary take the reset over."""
    copy = repository.copy
    assert copy.state is not None
    wanted = Adopted(copy.state.seq, copy.state.digest)
    author = {"identity": "host:primary", "trace": "t"}
    adopt.adopt(copy, RepoPath(repository.path), wanted, fleet.client, author)
    standing = bring_up_to_date(copy, repository.id, fleet.client)
    assert standing.problem is None, standing


def is_covered(fleet: MirrorFleet, repository: Repository, seq: int) -> bool:
    """Push until the older snapshot is behind a seq."""
    kept = snapshots(fleet, repository)
    if len(kept) == 2 and kept[1].seq > seq:
        return True
    fleet.push(repository)
    return False


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
