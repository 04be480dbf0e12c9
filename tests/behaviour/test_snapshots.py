"""Snapshots through real processes: made by mirrors, they let the log forget and new copies begin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from hgfleet.adapters.agent_answers import NamedSnapshot
from hgfleet.errors import RejectedError
from hgfleet.model.ids import Partition
from hgfleet.model.message import Topic
from tests.support.agents import short_directory
from tests.support.fleet_parts import open_log, use_site
from tests.support.kafka import KafkaCluster
from tests.support.kafka_topics import make_topics
from tests.support.mirror_fleet import Mirror, MirrorFleet, Repository, use_agent
from tests.support.s3_server import S3Server

RETENTION = {"seconds": 2.0, "interval_seconds": 0.3, "blob_grace_seconds": 2.0}


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[MirrorFleet]:
    with short_directory() as directory:
        use_agent(directory)
        fleet = MirrorFleet(directory, retention=getattr(request, "param", RETENTION)).start()
        yield fleet
        fleet.close()


def snapshots(fleet: MirrorFleet, repository: Repository) -> tuple[NamedSnapshot, ...]:
    return fleet.client.snapshots(repository.id)


def first_offset(fleet: MirrorFleet, repository: Repository) -> int:
    partition = fleet.client.last(repository.id).partition
    assert partition is not None
    log = open_log(fleet.directory)
    try:
        return log.first_offset(Topic.PUSHDATA, Partition(partition))
    finally:
        log.close()


def wait_trimmed(fleet: MirrorFleet, *repositories: Repository) -> None:
    """Wait until the log has nothing left of the repositories' first messages."""
    for repository in repositories:
        fleet.wait(lambda r=repository: is_trimmed(fleet, r), f"the log forgets {repository.path}", 60)


def is_trimmed(fleet: MirrorFleet, repository: Repository) -> bool:
    """Whether everything before the older snapshot is gone from the log."""
    kept = snapshots(fleet, repository)
    return len(kept) == 2 and first_offset(fleet, repository) > 2


def begin_again(mirror: Mirror) -> None:
    """Let a mirror lose its disk."""
    if mirror.process.is_running:
        mirror.process.kill()
    shutil.rmtree(mirror.home)
    mirror.process.start()


def test_the_log_forgets_behind_two_snapshots_and_an_empty_mirror_begins_from_them(
    fleet: MirrorFleet,
) -> None:
    busy, quiet = fleet.create("busy"), fleet.create("quiet")
    fleet.push(busy, 5)
    fleet.push(quiet, 3)
    for _ in range(3):
        fleet.push(busy, 2)
    fleet.assert_converged(busy, quiet)
    wait_trimmed(fleet, busy, quiet)
    one, other = fleet.mirrors
    begin_again(other)
    fleet.wait(lambda: other.is_ready, "the mirror serves again", 60)
    assert other.process.has_logged("applier.restored")
    fleet.push(busy)
    fleet.push(quiet)
    fleet.assert_converged(busy, quiet)
    made = sum(mirror.process.text().count('"snapshots.made"') for mirror in (one, other))
    assert made >= 4


def test_an_agent_without_index_begins_at_the_checkpoint_of_a_trimmed_log(fleet: MirrorFleet) -> None:
    repository = fleet.create("app")
    fleet.push(repository, 6)
    fleet.assert_converged(repository)
    wait_trimmed(fleet, repository)
    before = fleet.client.last(repository.id)
    fleet.agent.kill()
    for path in fleet.directory.glob("index.sqlite*"):
        path.unlink()
    fleet.agent.start()
    fleet.wait_agent()
    after = fleet.client.last(repository.id)
    assert (after.seq, after.digest, after.position.offset) == (
        before.seq,
        before.digest,
        before.position.offset,
    )
    fleet.push(repository, 2)
    fleet.assert_converged(repository)
    begin_again(fleet.mirrors[0])
    fleet.wait_ready()
    fleet.assert_converged(repository)


def test_a_mirror_that_was_away_for_longer_than_the_retention_rebuilds_its_copies_and_returns(
    fleet: MirrorFleet,
) -> None:
    _one, other = fleet.mirrors
    repository = fleet.create("app")
    fleet.push(repository, 3)
    fleet.assert_converged(repository)
    other.process.kill()
    fleet.push(repository, 4)
    wait_trimmed(fleet, repository)
    behind = other.applied(repository.id)
    fleet.push(repository)
    fleet.wait(lambda: snapshots(fleet, repository)[1].seq > behind, "it is overrun", 60)
    fleet.wait(lambda: is_gone(fleet, repository, behind + 1), "the log forgets what it lacks", 60)
    other.process.start()
    fleet.wait(lambda: other.process.has_logged("applier.parked", "log.overrun"), "it is detected", 60)
    fleet.wait(lambda: other.process.has_logged("applier.reconciled"), "it is rebuilt", 60)
    fleet.push(repository)
    fleet.assert_converged(repository)


def is_gone(fleet: MirrorFleet, repository: Repository, seq: int) -> bool:
    try:
        fleet.client.read(repository.id, seq - 1, max_bytes=1)
    except RejectedError as error:
        return error.code == "log.overrun"
    return False


def test_an_empty_mirror_begins_under_continuous_pushes_creations_renames_and_deletions(
    fleet: MirrorFleet,
) -> None:
    one, other = fleet.mirrors
    busy, doomed = fleet.create("busy"), fleet.create("doomed")
    fleet.push(busy, 4)
    fleet.push(doomed, 2)
    wait_trimmed(fleet, busy)
    begin_again(other)
    created = []
    while not other.is_ready:
        fleet.push(busy)
        assert one.is_ready
        if len(created) < 3:
            created.append(fleet.create(f"new{len(created)}"))
            fleet.push(created[-1])
        elif doomed.path:
            fleet.delete(doomed)
            fleet.client.rename("new0", "renamed", identity="alice", trace="t")
            created[0].path, doomed.path = "renamed", ""
    fleet.push(busy)
    fleet.assert_converged(busy, *created)
    assert {*other.paths()} == {*one.paths()}


def test_with_kafka_and_s3_the_log_forgets_and_empty_and_overrun_mirrors_come_back_by_themselves(
    kafka_broker: KafkaCluster, s3_server: S3Server
) -> None:
    with short_directory() as directory:
        kafka = make_topics(kafka_broker)
        bucket = s3_server.make_bucket(f"snapshots-{directory.name.lower().replace('_', '-')}")
        use_site(directory, kafka, s3_server.options(bucket))
        use_agent(directory)
        fleet = MirrorFleet(directory, retention=RETENTION).start()
        try:
            rebuild_an_overrun_and_an_empty_mirror(fleet)
        finally:
            fleet.close()


def rebuild_an_overrun_and_an_empty_mirror(fleet: MirrorFleet) -> None:
    one, other = fleet.mirrors
    repository, quiet = fleet.create("busy"), fleet.create("quiet")
    fleet.push(repository, 3)
    fleet.push(quiet, 3)
    fleet.assert_converged(repository, quiet)
    other.process.kill()
    behind = other.applied(repository.id)
    fleet.push(repository, 4)
    fleet.wait(lambda: has_passed(fleet, repository, behind), "both snapshots are newer", 120)
    fleet.wait(lambda: is_gone(fleet, repository, behind + 1), "the log forgets what it lacks", 120)
    other.process.start()
    fleet.wait(lambda: other.process.has_logged("applier.parked", "log.overrun"), "it is detected", 60)
    fleet.wait(lambda: other.process.has_logged("applier.reconciled"), "it is rebuilt", 60)
    fleet.assert_converged(repository, quiet)
    begin_again(one)
    fleet.wait(lambda: one.is_ready, "the mirror serves again", 60)
    assert one.process.has_logged("applier.restored")
    fleet.push(repository)
    fleet.push(quiet)
    fleet.assert_converged(repository, quiet)


def has_passed(fleet: MirrorFleet, repository: Repository, seq: int) -> bool:
    """Push until the older of two snapshots is behind a seq; snapshots are made of what changes."""
    kept = snapshots(fleet, repository)
    if len(kept) == 2 and kept[1].seq > seq:
        return True
    fleet.push(repository)
    return False
