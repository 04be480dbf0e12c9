"""Mirrors apply on their own and show together: real agent, coordinator, appliers and workers."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from hgfleet.adapters.agent_answers import AppendRequest
from hgfleet.model.fleet_records import Stage
from hgfleet.model.message import Kind, payload_ref
from hgfleet.model.state import Fingerprint
from tests.support.mirror_fleet import Mirror, MirrorFleet, Repository, use_agent
from tests.support.replication_process import LEASE_SECONDS, SELF_STALE_SECONDS

_numbers = count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorFleet]:
    directory = tmp_path_factory.mktemp("mirrors")
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
        if process.is_running:
            process.thaw()
        else:
            process.start()
    running.wait_ready()
    return running


@pytest.fixture
def repository(fleet: MirrorFleet) -> Repository:
    repository = fleet.create(f"team/app{next(_numbers)}")
    fleet.push(repository)
    fleet.wait_exposed(repository)
    return repository


def test_what_one_push_changes_is_shown_at_once_and_alike_by_every_mirror(
    fleet: MirrorFleet, repository: Repository
) -> None:
    def move(repo: Any, tr: Any) -> None:
        tip = repo[b"tip"]
        repo._bookmarks.applychanges(repo, tr, [(b"release", tip.node())])
        from mercurial import phases

        phases.advanceboundary(repo, tr, phases.public, [tip.node()])

    fleet.push(repository, 3)
    fleet.change(repository, move)
    fleet.change(repository, lambda repo, tr: repo._bookmarks.applychanges(repo, tr, [(b"release", None)]))
    fleet.assert_converged(repository)


def test_a_push_too_large_for_the_log_reaches_every_mirror_through_the_blob_store(
    fleet: MirrorFleet, repository: Repository
) -> None:
    content = os.urandom(600_000).hex().encode()
    fleet.change(repository, lambda repo, tr: _commit_file(repo, b"large", content))
    assert list((fleet.directory / "blobs").rglob("*")), "the payload went through the blob store"
    fleet.assert_converged(repository)
    for mirror in fleet.mirrors:
        assert not [path for path in (mirror.home / "spool").rglob("*") if path.is_file()]


def test_nobody_shows_a_push_before_every_counted_mirror_has_it(
    fleet: MirrorFleet, repository: Repository
) -> None:
    one, two = fleet.mirrors
    shown = one.exposed(repository.id)
    two.process.freeze()
    fleet.push(repository)
    fleet.wait(lambda: one.applied(repository.id) == repository.seq, "the other mirror has applied it")
    assert one.exposed(repository.id) == shown == two.exposed(repository.id)
    assert not fleet.client.wait_visible(repository.id, repository.seq, 0.1).is_visible
    two.process.thaw()
    fleet.assert_converged(repository)
    fleet.wait(
        lambda: fleet.client.wait_visible(repository.id, repository.seq, 1).is_visible,
        "visible on all is said",
    )


def test_a_mirror_silent_for_a_lease_is_left_behind_and_joins_anew(
    fleet: MirrorFleet, repository: Repository
) -> None:
    one, two = fleet.mirrors
    before = _incarnation(two)
    two.process.freeze()
    fleet.push(repository)
    fleet.wait(lambda: not two.is_ready, "the frozen mirror turns unready by itself", SELF_STALE_SECONDS + 1)
    fleet.wait_exposed(repository, one, deadline_seconds=LEASE_SECONDS + 5)
    two.process.thaw()
    fleet.wait_ready()
    assert _incarnation(two) > before, "a lapsed lease is never renewed"
    assert two.exposed(repository.id) == repository.seq, "served last, after everything was exposed"
    fleet.assert_converged(repository)


def test_repositories_that_come_move_and_go_while_a_mirror_is_frozen(fleet: MirrorFleet) -> None:
    one, two = fleet.mirrors
    doomed, moved = fleet.create("old/doomed"), fleet.create("old/moved")
    fleet.push(doomed, 2)
    fleet.push(moved)
    fleet.assert_converged(doomed, moved)
    two.process.freeze()
    fleet.delete(doomed)
    again = fleet.create("old/doomed")
    fleet.push(again, 3)
    passing = fleet.create("old/passing")
    fleet.delete(passing)
    fleet.client.rename("old/moved", "new/moved", identity="alice", trace="t")
    moved.path = "new/moved"
    fleet.wait(lambda: one.applied(again.id) == again.seq, "the other mirror has applied it all")
    assert one.paths()["old/doomed"] == doomed.id, "both show the old catalogue"
    assert one.exposed(doomed.id) == 3
    two.process.thaw()
    fleet.wait(lambda: "old/doomed" in one.paths() and one.paths()["old/doomed"] == again.id, "recreated")
    fleet.assert_converged(again, moved)
    for mirror in fleet.mirrors:
        fleet.wait(lambda m=mirror: "old/passing" not in m.paths(), "what came and went is gone")
        fleet.wait(lambda m=mirror: not m.hg_directory(doomed.id).exists(), "a deleted copy is removed")
        assert "old/moved" not in mirror.paths()


def test_a_stuck_and_a_parked_repository_hold_up_no_other(fleet: MirrorFleet, repository: Repository) -> None:
    one, _ = fleet.mirrors
    stuck, poisoned = fleet.create("odd/stuck"), fleet.create("odd/poisoned")
    fleet.wait_exposed(stuck)
    fleet.wait_exposed(poisoned)
    one.process.arm("apply-before-close", "stall")
    fleet.push(stuck)
    fleet.wait(lambda: one.process.has_reached("apply-before-close"), "a worker is stuck")
    worker = one.process.freeze_at("apply-before-close")
    _append_nonsense(fleet, poisoned)
    fleet.wait(lambda: all(poisoned.id in m.parked() for m in fleet.mirrors), "the poisoned one is parked")
    fleet.push(repository, 200)
    fleet.wait_exposed(repository)
    assert one.exposed(stuck.id) < stuck.seq
    os.kill(worker, signal.SIGCONT)
    fleet.assert_converged(repository, stuck)


def test_a_copy_that_something_else_changed_is_refused_rebuilt_and_served_again(
    fleet: MirrorFleet, repository: Repository
) -> None:
    one = fleet.mirrors[0]
    fleet.push(repository, 2)
    fleet.wait_exposed(repository)
    roots = one.hg_directory(repository.id) / "store" / "phaseroots"
    generation = one.hg_directory(repository.id).parent.resolve().name
    roots.write_bytes(b"")
    fleet.push(repository)
    fleet.wait(lambda: one.process.has_logged("applier.parked", repository.id), "the copy is parked")
    fleet.assert_converged(repository)
    assert one.hg_directory(repository.id).parent.resolve().name != generation
    assert not (one.home / "repos" / repository.id / generation).exists()
    fleet.push(repository)
    fleet.assert_converged(repository)


def test_a_rebuilt_copy_answers_only_when_the_fleet_counts_it_again(
    fleet: MirrorFleet, repository: Repository
) -> None:
    one = fleet.mirrors[0]
    fleet.coordinator.kill()
    (one.hg_directory(repository.id) / "store" / "phaseroots").write_bytes(b"")
    fleet.push(repository)
    fleet.wait(lambda: one.process.has_logged("applier.reconciled", repository.id), "the copy is rebuilt")
    fleet.wait(lambda: one.applied(repository.id) == repository.seq, "and as far as its log")
    assert repository.id in one.parked()
    fleet.coordinator.start()
    fleet.assert_converged(repository)


def test_a_damaged_blob_parks_one_repository_until_the_blob_is_whole_again(
    fleet: MirrorFleet, repository: Repository
) -> None:
    for mirror in fleet.mirrors:
        mirror.process.freeze()
    before = set((fleet.directory / "blobs").rglob("*"))
    content = os.urandom(400_000).hex().encode()
    fleet.change(repository, lambda repo, tr: _commit_file(repo, b"large", content))
    [blob] = [path for path in set((fleet.directory / "blobs").rglob("*")) - before if path.is_file()]
    whole = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(whole[:-1] + b"?")
    for mirror in fleet.mirrors:
        mirror.process.thaw()
    fleet.wait(lambda: all(repository.id in m.parked() for m in fleet.mirrors), "it is parked everywhere")
    other = fleet.create(f"team/other{next(_numbers)}")
    fleet.push(other)
    fleet.assert_converged(other)
    blob.write_bytes(whole)
    fleet.assert_converged(repository)


def test_a_mirror_with_an_empty_disk_bootstraps_from_the_log(
    fleet: MirrorFleet, repository: Repository
) -> None:
    two = fleet.mirrors[1]
    fleet.push(repository, 5)
    fleet.wait_exposed(repository)
    two.process.kill()
    shutil.rmtree(two.home)
    two.process.start()
    fleet.wait_ready()
    fleet.assert_converged(repository)


def test_mirrors_stay_in_service_when_the_log_agent_is_killed_and_restarted(
    fleet: MirrorFleet, repository: Repository
) -> None:
    fleet.agent.kill()
    fleet.agent.start()
    fleet.wait_agent()
    fleet.push(repository)
    fleet.assert_converged(repository)
    fleet.wait_ready()
    stages = {serving.stage for mirror in fleet.mirrors if (serving := mirror.serving())}
    assert stages == {Stage.SERVING}


def test_with_the_log_agent_gone_mirrors_turn_unready_but_refuse_nothing(
    fleet: MirrorFleet, repository: Repository
) -> None:
    fleet.agent.kill()
    fleet.wait(lambda: not any(m.is_ready for m in fleet.mirrors), "leases run out")
    two = fleet.mirrors[1]
    two.process.kill()
    two.process.start()
    fleet.wait(lambda: _lease(two) == 0.0, "the restarted applier has taken over")
    for mirror in fleet.mirrors:
        serving = mirror.serving()
        assert serving is not None
        assert serving.stage is Stage.SERVING, "a last resort still answers"
        assert mirror.exposed(repository.id) == repository.seq
    fleet.agent.start()
    fleet.wait_ready()
    fleet.push(repository)
    fleet.assert_converged(repository)


def test_a_mirror_that_is_told_to_stop_refuses_says_so_and_is_not_waited_for(
    fleet: MirrorFleet, repository: Repository
) -> None:
    one, two = fleet.mirrors
    assert two.process.stop() == 0
    serving = two.serving()
    assert serving is not None
    assert serving.stage is Stage.DRAINING
    fleet.push(repository)
    fleet.wait_exposed(repository, one, deadline_seconds=LEASE_SECONDS / 2)
    two.process.start()
    fleet.wait_ready()
    fleet.assert_converged(repository)


def test_without_a_coordinator_nothing_new_is_shown_and_after_its_restart_it_is(
    fleet: MirrorFleet, repository: Repository
) -> None:
    shown = repository.seq
    fleet.coordinator.kill()
    fleet.push(repository, 2)
    for mirror in fleet.mirrors:
        fleet.wait(lambda m=mirror: m.applied(repository.id) == repository.seq, "it is applied")
        assert mirror.exposed(repository.id) == shown
        assert mirror.is_ready, "readiness does not depend on the coordinator"
    fleet.coordinator.start()
    fleet.assert_converged(repository)


def _incarnation(mirror: Mirror) -> int:
    serving = mirror.serving()
    assert serving is not None
    return serving.incarnation


def _lease(mirror: Mirror) -> float:
    serving = mirror.serving()
    assert serving is not None
    return serving.lease_ends_at


def _commit_file(repo: Any, name: bytes, data: bytes) -> None:
    from mercurial import context

    def content(repo: Any, memctx: Any, path: bytes) -> Any:
        return context.memfilectx(repo, memctx, path, data)

    parents = (repo[b"tip"].node(), b"\0" * 20)
    repo.commitctx(context.memctx(repo, parents, b"large", [name], content, b"alice", b"0 0"))


def _append_nonsense(fleet: MirrorFleet, repository: Repository) -> None:
    """Have the log accept a push whose payload nobody can apply."""
    last = fleet.client.last(repository.id)
    payload = b"hgfleet-payload/1\nnonsense"
    request = AppendRequest(
        repository=repository.id,
        base_seq=last.seq,
        base_digest=last.digest,
        epoch=last.serving_epoch,
        kind=Kind.PUSH,
        body={"fingerprint": Fingerprint().to_json(), "push_id": 1, "pusher": "alice"},
        identity="alice",
        trace="t",
        payload=payload_ref(payload),
        inline=payload,
    )
    fleet.client.append(request, 5.0)
