"""A copy becomes what its log says, or stays as it is and refuses writes with the reason."""

import errno
import shutil
from pathlib import Path

import pytest
from mercurial import error

from hgfleet.errors import PoisonError, RejectedError, TransientError
from hgfleet.hgext import apply, binding, copies, recovery, seqfile
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.rebuild import rebuild
from hgfleet.model.ids import RepoId
from hgfleet.model.message import Kind
from tests.support.local_copies import (
    PARTITION,
    REPOSITORY,
    Fleet,
    assert_identical,
    commit,
    files_of,
    move_bookmarks,
    store_of,
    ui,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet.make(tmp_path)
    for number in range(9):
        commit(fleet.repo, f"changeset {number}")
    return fleet


def other_primary(fleet: Fleet, seq: int) -> Copy:
    """Return a copy of the primary's kind that has the log up to `seq`."""
    copy = Copy(ui(), fleet.directory / f"old{seq}" / REPOSITORY)
    if seq:
        fetch = recovery.blob_fetcher(copy, fleet.agent)
        apply.apply_messages(copy, PARTITION, fleet.steps()[:seq], fetch)
        binding.of(copy.repo).agent_client = fleet.agent
    return copy


@pytest.mark.parametrize("seq", [0, 1, 4, 10])
def test_a_copy_is_created_or_completed(fleet: Fleet, seq: int) -> None:
    copy = other_primary(fleet, seq)

    standing = recovery.bring_up_to_date(copy, REPOSITORY, fleet.agent)

    assert standing.problem is None
    assert standing.state == fleet.state
    assert_identical(fleet.primary, copy)


def test_a_copy_that_is_current_is_left_alone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_args: object) -> None:
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr(recovery, "check_under_lock", unexpected)
    monkeypatch.setattr(recovery, "catch_up", unexpected)
    assert fleet.bring_up_to_date().state == fleet.state


def test_an_abandoned_transaction_is_rolled_back(fleet: Fleet) -> None:
    before = files_of(fleet.primary)
    store = store_of(fleet.primary)
    sizes = {name: (store / name).stat().st_size for name in ("00changelog.i", "00manifest.i")}
    (store / "journal").write_text("".join(f"{name}\0{size}\n" for name, size in sizes.items()))
    for name in sizes:
        with (store / name).open("ab") as file:
            file.write(b"torn")

    assert fleet.bring_up_to_date().problem is None

    assert files_of(fleet.primary) == before
    commit(fleet.repo, "next")
    fleet.check_replicas()


def test_a_copy_ahead_of_its_log_is_left_alone_and_refuses_writes(fleet: Fleet) -> None:
    before = files_of(fleet.primary)
    for cut in (3, 9):
        lost = fleet.messages[cut:]
        del fleet.messages[cut:]

        standing = fleet.bring_up_to_date()
        assert standing.problem is not None
        assert standing.problem.code == "log.behind"
        assert "hgfleet log adopt" in standing.problem.hint
        with pytest.raises(error.Abort, match=r"behind this copy.*nothing was changed"):
            move_bookmarks(fleet.repo, {b"here": fleet.repo[0].node()})

        assert len(fleet.repo) == 9
        fleet.messages.extend(lost)
    assert files_of(fleet.primary) == before
    assert fleet.bring_up_to_date().problem is None


def test_a_log_that_forgot_the_repository_leaves_the_copy_alone(fleet: Fleet) -> None:
    before = files_of(fleet.primary)
    fleet.messages.clear()

    standing = fleet.bring_up_to_date()

    assert standing.problem is not None
    assert standing.problem.code == "log.behind"
    with pytest.raises(error.Abort, match="nothing was changed"):
        commit(fleet.repo, "more")
    assert files_of(fleet.primary) == before


def test_another_history_of_the_log_is_never_mixed_with_the_copys(fleet: Fleet) -> None:
    before = files_of(fleet.primary)
    steps = fleet.messages
    del steps[5:]
    for number in range(12):
        fleet.agent.write(REPOSITORY, Kind.VOID, {"number": number})

    standing = fleet.bring_up_to_date()

    assert standing.problem is not None
    assert standing.problem.code == "log.behind"
    assert files_of(fleet.primary) == before


@pytest.mark.parametrize("part", ["bookmarks", "phases", "changelog", "seqfile"])
def test_a_copy_that_something_else_wrote_to_refuses_writes(fleet: Fleet, part: str) -> None:
    store = store_of(fleet.primary)
    node = fleet.repo[3].hex().decode()
    if part == "bookmarks":
        (store.parent / "bookmarks").write_text(f"{node} strange\n")
    elif part == "phases":
        (store / "phaseroots").write_text(f"2 {node}\n")
    elif part == "changelog":
        data = (store / "00changelog.i").read_bytes()
        (store / "00changelog.i").write_bytes(data[: 64 * 8])
    else:
        (store / seqfile.NAME).write_text("{}")
    fleet.primary.forget()

    with pytest.raises(error.Abort, match="nothing was changed"):
        commit(fleet.repo, "more")

    assert len(fleet.messages) == 10


def test_a_log_that_cannot_be_asked_lets_the_copy_be_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_repository: RepoId) -> None:
        raise TransientError("local.unreachable", "no answer")

    monkeypatch.setattr(fleet.agent, "last", unreachable)

    standing = fleet.bring_up_to_date()

    assert standing.state == fleet.state
    assert isinstance(standing.problem, TransientError)
    with pytest.raises(TransientError):
        recovery.bring_up_to_date(other_primary(fleet, 0), REPOSITORY, fleet.agent)


def test_a_disk_that_cannot_be_written_lets_the_copy_be_read_as_it_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = other_primary(fleet, 4)
    before = files_of(copy)

    def full(*_args: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(copy.repo.changelog), "addgroup", full)
    standing = recovery.bring_up_to_date(copy, REPOSITORY, fleet.agent)

    assert isinstance(standing.problem, TransientError)
    assert standing.state.seq == 4
    assert len(copy.repo) == 3
    monkeypatch.undo()
    assert files_of(copy) == before
    assert recovery.bring_up_to_date(copy, REPOSITORY, fleet.agent).problem is None
    assert_identical(fleet.primary, copy)


def test_a_repository_that_the_log_never_had_is_unknown(fleet: Fleet, tmp_path: Path) -> None:
    copy = Copy(ui(), tmp_path / "none")
    with pytest.raises(RejectedError) as caught:
        recovery.bring_up_to_date(copy, RepoId("cd" * 16), fleet.agent)
    assert caught.value.code == "repo.unknown"
    assert not (tmp_path / "none").exists()


def test_a_message_that_can_never_be_applied_stops_writes_and_not_reads(fleet: Fleet) -> None:
    last = fleet.messages[-1]
    fleet.agent.write(REPOSITORY, Kind.PUSH, dict(last.envelope.body), b"nonsense")

    standing = fleet.bring_up_to_date()

    assert isinstance(standing.problem, PoisonError)
    assert standing.state.seq == 10
    with pytest.raises(error.Abort, match="nothing was changed"):
        commit(fleet.repo, "more")


def test_a_copy_whose_creation_was_cut_short_is_created_anew(fleet: Fleet) -> None:
    copy = other_primary(fleet, 0)
    (copy.directory / "building-77" / ".hg").mkdir(parents=True)
    recovery.bring_up_to_date(copy, REPOSITORY, fleet.agent)
    (copy.directory / "current").unlink()  # as if it had died between the two renames
    copy.forget()

    standing = recovery.bring_up_to_date(copy, REPOSITORY, fleet.agent)

    assert standing.problem is None
    assert standing.state == fleet.state
    assert_identical(fleet.primary, copy)


def test_whoever_opened_a_generation_keeps_it_when_another_is_in_use(fleet: Fleet) -> None:
    copy = other_primary(fleet, 10)
    old = copy.repo
    from hgfleet.hgext import generations

    generations.create_next(
        copy.directory, lambda root: shutil.copytree(old.root.decode(), root, symlinks=True)
    )

    with pytest.raises(error.Abort, match=r"was replaced.*nothing was changed"):
        commit(old, "into a dead directory")
    assert copy.repo is not old
    assert copy.repo.root != old.root
    assert len(old) == len(copy.repo) == 9
    generations.drop_others(copy.directory)
    assert not Path(old.root.decode()).exists()
    assert copies.state_of(copy.repo) == fleet.state


@pytest.mark.parametrize("part", ["bookmarks", "changelog", "seqfile", "requires"])
def test_an_altered_copy_is_built_anew_beside_the_old_one(fleet: Fleet, part: str) -> None:
    store = store_of(fleet.primary)
    old = fleet.repo
    if part == "bookmarks":
        (store.parent / "bookmarks").write_text(f"{old[3].hex().decode()} strange\n")
    elif part == "changelog":
        data = (store / "00changelog.i").read_bytes()
        (store / "00changelog.i").write_bytes(data[: 64 * 8])
    elif part == "seqfile":
        (store / seqfile.NAME).write_text("{}")
    else:
        (store / "requires").write_text("from-the-future\n")
        fleet.primary.forget()

    state = rebuild(fleet.primary, REPOSITORY, fleet.agent)

    assert state.seq == 10
    assert fleet.state == state
    assert fleet.bring_up_to_date().problem is None
    commit(fleet.repo, "next")
    fleet.check_replicas()
    assert store.exists()
    assert not (fleet.primary.directory / "rebuilding").exists()
    with pytest.raises(error.Abort, match=r"nothing was changed"):
        commit(old, "into the old one")


def test_a_copy_ahead_of_its_log_is_never_built_anew(fleet: Fleet) -> None:
    before = files_of(fleet.primary)
    del fleet.messages[4:]
    with pytest.raises(RejectedError) as caught:
        rebuild(fleet.primary, REPOSITORY, fleet.agent)
    assert caught.value.code == "log.behind"
    assert files_of(fleet.primary) == before
