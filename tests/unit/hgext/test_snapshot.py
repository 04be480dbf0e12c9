"""A snapshot of a copy, and the copy that it restores: byte by byte what a replayed one is (R5)."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest
from mercurial import phases

from hgfleet.adapters.agent_answers import NamedSnapshot
from hgfleet.errors import FleetError, PoisonError
from hgfleet.hgext import apply, binding, generations, recovery, snapshot, state_digest
from hgfleet.hgext.copies import Copy
from hgfleet.model.ids import Digest, Seq
from hgfleet.model.message import Kind
from hgfleet.model.settings import RepoSettings
from tests.support.local_copies import (
    PARTITION,
    REPOSITORY,
    Fleet,
    assert_identical,
    commit,
    move_bookmarks,
    obsolete,
    set_phase,
    ui,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A primary with some of everything."""
    fleet = Fleet.make(tmp_path)
    first = commit(fleet.repo, "first")
    second = commit(fleet.repo, "second")
    heads = [commit(fleet.repo, f"head {number}", (first,)) for number in range(6)]
    closed = commit(fleet.repo, "closed", (second,), extra={b"branch": b"old", b"close": b"1"})
    set_phase(fleet.repo, phases.public, first)
    set_phase(fleet.repo, phases.secret, heads[2])
    move_bookmarks(fleet.repo, {"über".encode(): second, b"gone": closed})
    move_bookmarks(fleet.repo, {b"gone": None})
    obsolete(fleet.repo, heads[0], heads[1])
    obsolete(fleet.repo, heads[3])
    fleet.agent.write(REPOSITORY, Kind.VOID, {})
    settings = RepoSettings(("a", "b"), is_publishing=False, description="ä text").to_json()
    fleet.agent.write(REPOSITORY, Kind.SETTINGS, {"settings": settings})
    fleet.bring_up_to_date()
    return fleet


def made_by(fleet: Fleet, name: str = "snap") -> tuple[snapshot.Made, Path]:
    """Let a mirror that replayed the log make a snapshot."""
    mirror = fleet.replica()
    fleet.replay(mirror)
    target = fleet.directory / name
    return snapshot.make(mirror, target), target


def restored(fleet: Fleet, made: snapshot.Made, source: Path, name: str = "restored") -> Copy:
    copy = fleet.replica(name)
    snapshot.restore(copy, (made.header.seq, made.header.digest), source)
    return copy


def test_a_restored_copy_is_the_replayed_one_byte_by_byte(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    copy = restored(fleet, made, source)
    assert_identical(fleet.primary, copy)
    assert made.blob.size_bytes == source.stat().st_size


def test_a_restored_copy_goes_on_with_the_log(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    move_bookmarks(fleet.repo, {b"later": commit(fleet.repo, "later")})
    obsolete(fleet.repo, commit(fleet.repo, "soon gone"))
    copy = restored(fleet, made, source)
    fetch = recovery.blob_fetcher(copy, fleet.agent)
    apply.apply_messages(copy, PARTITION, fleet.steps()[made.header.seq :], fetch)
    assert_identical(fleet.primary, copy)


def test_an_empty_repository_has_a_snapshot_too(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path)
    made, source = made_by(fleet)
    assert_identical(fleet.primary, restored(fleet, made, source))


def test_two_copies_restored_from_snapshots_of_different_replicas_are_equal(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    once = restored(fleet, made, source)
    again = snapshot.make(once, fleet.directory / "again")
    assert again.header.state_digest == made.header.state_digest
    assert_identical(once, restored(fleet, again, fleet.directory / "again", "twice"))


def test_a_copy_that_exists_keeps_its_generation_until_the_new_one_is_whole(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    copy = fleet.replica("behind")
    apply.apply_messages(copy, PARTITION, fleet.steps()[:3], recovery.blob_fetcher(copy, fleet.agent))
    before = generations.current_root(copy.directory)
    source.write_bytes(source.read_bytes()[:-40])
    with pytest.raises(PoisonError):
        snapshot.restore(copy, (made.header.seq, made.header.digest), source)
    assert generations.current_root(copy.directory) == before
    state = copy.state
    assert state is not None
    assert state.seq == 3


@pytest.mark.parametrize("place", [0, 30, 200, 0.3, 0.6, 0.95, -2])
def test_a_damaged_snapshot_never_becomes_a_copy_in_another_state(fleet: Fleet, place: float) -> None:
    made, source = made_by(fleet)
    data = bytearray(source.read_bytes())
    index = place if isinstance(place, int) else int(len(data) * place)
    data[index] ^= 0x55
    source.write_bytes(data)
    copy = fleet.replica("damaged")
    try:
        snapshot.restore(copy, (made.header.seq, made.header.digest), source)
    except FleetError:
        assert not copy.is_present
    else:  # a delta of a file or a manifest: only the blob's SHA-256 covers these (docs/design/snapshots.md)
        assert state_digest.full_digest(copy.repo) == made.header.state_digest


def test_a_snapshot_of_another_state_than_the_log_says_is_refused(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    with pytest.raises(PoisonError, match="another state"):
        snapshot.restore(fleet.replica("x"), (made.header.seq, Digest("00" * 32)), source)
    with pytest.raises(PoisonError, match="another state"):
        snapshot.restore(fleet.replica("x"), (Seq(made.header.seq + 1), made.header.digest), source)


def test_what_is_pushed_while_a_snapshot_is_written_is_not_in_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = fleet.replica()
    fleet.replay(mirror)
    seq = fleet.state.seq
    other = Copy(ui("mirror"), mirror.directory)

    def freeze(repo: object) -> snapshot._Frozen:
        frozen = original(repo)
        pushed.append(frozen)
        return frozen

    original, pushed = snapshot._freeze, []
    monkeypatch.setattr(snapshot, "_freeze", freeze)
    write = snapshot._write_payload

    def write_later(repo: object, frozen: snapshot._Frozen, writer: object) -> None:
        commit(fleet.repo, "meanwhile")
        set_phase(fleet.repo, phases.secret, fleet.repo[b"tip"].node())
        obsolete(fleet.repo, commit(fleet.repo, "and gone"))
        fleet.replay(other)
        write(repo, frozen, writer)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "_write_payload", write_later)
    target = fleet.directory / "snap"
    made = snapshot.make(mirror, target)
    assert made.header.seq == seq
    copy = restored(fleet, made, target)
    apply.apply_messages(copy, PARTITION, fleet.steps()[seq:], recovery.blob_fetcher(copy, fleet.agent))
    assert_identical(fleet.primary, copy)


def test_memory_does_not_grow_with_the_size_of_what_is_written(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path)
    for number in range(40):
        commit(fleet.repo, f"big {number}", files={f"big{number}": os.urandom(1_000_000)})
    mirror = fleet.replica()
    fleet.replay(mirror)
    tracemalloc.start()
    try:
        made = snapshot.make(mirror, tmp_path / "snap")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.blob.size_bytes > 40_000_000
    assert peak < 16_000_000


def name(fleet: Fleet, made: snapshot.Made, source: Path) -> None:
    """Store the snapshot and have the log name it."""
    fleet.agent.blob_put(source, made.blob.sha256, made.blob.size_bytes)
    header = made.header
    fleet.agent.named.insert(
        0,
        NamedSnapshot(
            header.seq, header.digest, header.state_digest, 1, made.blob, header.made_at, "mirror1"
        ),
    )


def forget_before(fleet: Fleet, seq: int) -> None:
    fleet.agent.first_seq = seq


def test_a_primary_on_an_empty_disk_begins_from_a_snapshot(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    name(fleet, made, source)
    commit(fleet.repo, "later")
    forget_before(fleet, made.header.seq)
    fresh = Copy(ui(), fleet.directory / "fresh" / REPOSITORY)
    recovery.bring_up_to_date(fresh, REPOSITORY, fleet.agent)
    assert_identical(fleet.primary, fresh)


def test_a_copy_that_is_behind_what_the_log_has_left_becomes_that_of_a_snapshot(fleet: Fleet) -> None:
    made, source = made_by(fleet)
    behind = Copy(ui(), fleet.directory / "behind" / REPOSITORY)
    apply.apply_messages(behind, PARTITION, fleet.steps()[:4], recovery.blob_fetcher(behind, fleet.agent))
    name(fleet, made, source)
    forget_before(fleet, made.header.seq)
    binding.of(behind.repo).agent_client = fleet.agent
    standing = recovery.bring_up_to_date(behind, REPOSITORY, fleet.agent)
    assert standing.problem is None
    assert_identical(fleet.primary, behind)
    assert (behind.directory / "g1").is_dir()


def test_a_damaged_or_missing_snapshot_is_passed_over_for_the_older_one_and_for_the_log(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    name(fleet, *made_by(fleet, "older"))
    commit(fleet.repo, "later")
    second, source = snapshot_of_replica(fleet, "second")
    name(fleet, second, source)
    blob = fleet.agent.blobs / second.blob.sha256
    blob.write_bytes(blob.read_bytes()[:-100])
    fresh = Copy(ui(), fleet.directory / "fresh" / REPOSITORY)
    recovery.bring_up_to_date(fresh, REPOSITORY, fleet.agent)
    assert_identical(fleet.primary, fresh)
    for named in fleet.agent.named:
        (fleet.agent.blobs / named.blob.sha256).write_bytes(b"nothing")
    again = Copy(ui(), fleet.directory / "again" / REPOSITORY)
    recovery.bring_up_to_date(again, REPOSITORY, fleet.agent)
    assert_identical(fleet.primary, again)
    assert [record.message for record in caplog.records].count("snapshot.unusable") == 3


def test_without_snapshot_and_beginning_the_copy_stays_what_it_was_and_says_why(fleet: Fleet) -> None:
    behind = Copy(ui(), fleet.directory / "behind" / REPOSITORY)
    apply.apply_messages(behind, PARTITION, fleet.steps()[:4], recovery.blob_fetcher(behind, fleet.agent))
    forget_before(fleet, 6)
    binding.of(behind.repo).agent_client = fleet.agent
    standing = recovery.bring_up_to_date(behind, REPOSITORY, fleet.agent)
    assert standing.problem is not None
    assert standing.problem.code == "log.overrun"
    assert standing.state.seq == 4


def snapshot_of_replica(fleet: Fleet, name: str) -> tuple[snapshot.Made, Path]:
    mirror = fleet.replica(f"mirror-{name}")
    fleet.replay(mirror)
    target = fleet.directory / name
    return snapshot.make(mirror, target), target
