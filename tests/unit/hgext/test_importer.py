"""An existing repository comes into the fleet whole, or not at all."""

from pathlib import Path
from typing import Any

import pytest
from mercurial import localrepo
from mercurial import ui as uimod

from hgfleet.errors import InDoubtError, RejectedError
from hgfleet.hgext import importer
from tests.support.local_copies import REPOSITORY, Fleet, changing, commit, files_of, move_bookmarks


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.make(tmp_path, inline_limit_bytes=2000)


@pytest.fixture
def source(tmp_path: Path) -> Any:
    """A plain repository with branches, all phases, bookmarks, hidden changesets and markers."""
    ui = uimod.ui()
    ui.setconfig(b"ui", b"username", b"Bob", b"test")
    ui.setconfig(b"experimental", b"evolution", b"all", b"test")
    ui.setconfig(b"phases", b"new-commit", b"draft", b"test")
    repo = localrepo.instance(ui, bytes(tmp_path / "source"), True)
    from mercurial import obsolete, phases

    nodes = [commit(repo, "root")]
    for number in range(12):
        nodes.append(commit(repo, f"changeset {number}", (nodes[number // 2],), {"f": b"%d\n" % number * 30}))
    with changing(repo) as tr:
        phases.advanceboundary(repo, tr, phases.public, [nodes[3]])
        phases.retractboundary(repo, tr, phases.secret, [nodes[10]])
        obsolete.createmarkers(repo, [(repo[nodes[5]], (repo[nodes[7]],))], operation=b"amend")
        repo._bookmarks.applychanges(repo, tr, [(b"main", nodes[12]), ("größe".encode(), nodes[1])])
    return repo


def run(fleet: Fleet, source: Any, seen: list[Any] | None = None) -> importer.Imported:
    path = source if isinstance(source, str) else source.root.decode()
    report = seen.append if seen is not None else (lambda _step: None)
    return importer.import_repository(
        fleet.primary, REPOSITORY, path, fleet.agent, lambda *step: report(step)
    )


def test_everything_arrives_as_one_push_through_the_blob_store(fleet: Fleet, source: Any) -> None:
    seen: list[Any] = []
    done = run(fleet, source, seen)

    repo = fleet.repo
    assert (done.changesets, done.is_new, done.state.seq) == (13, True, 2)
    assert [repo.changelog.node(rev) for rev in repo.changelog] == [
        source.changelog.node(rev) for rev in source.changelog
    ]
    assert [repo.unfiltered()[rev].phase() for rev in range(13)] == [
        source.unfiltered()[rev].phase() for rev in range(13)
    ]
    assert dict(repo._bookmarks.items()) == dict(source._bookmarks.items())
    assert repo.svfs.read(b"obsstore") == source.svfs.read(b"obsstore")
    assert not fleet.messages[-1].envelope.payload.is_inline
    assert {topic for topic, _position, _total in seen} >= {"changesets", "manifests", "files"}
    fleet.check_replicas()


def test_repeating_it_finds_that_all_is_there(fleet: Fleet, source: Any) -> None:
    first = run(fleet, source)
    again = run(fleet, source)
    assert (again.is_new, again.state) == (False, first.state)
    assert len(fleet.messages) == 2


def test_a_repository_that_has_something_else_is_refused(fleet: Fleet, source: Any) -> None:
    commit(fleet.repo, "other")
    with pytest.raises(RejectedError, match="nothing was changed") as caught:
        run(fleet, source)
    assert caught.value.code == "import.not-empty"
    assert len(fleet.messages) == 2


@pytest.mark.parametrize(("requirement", "name"), [("lfs", "LFS"), ("largefiles", "largefiles")])
def test_what_cannot_be_replicated_is_refused_by_name(
    fleet: Fleet, source: Any, requirement: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importer.copies.open_repository

    def open_with_requirement(ui: Any, root: Any) -> Any:
        repo = original(ui, root)
        repo.requirements = {*repo.requirements, requirement.encode()}
        return repo

    monkeypatch.setattr(importer.copies, "open_repository", open_with_requirement)
    with pytest.raises(RejectedError, match=f"{name}.*not supported; nothing was changed"):
        run(fleet, source)


def test_a_source_that_is_none_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="nothing was changed"):
        run(fleet, str(tmp_path / "nowhere"))
    (tmp_path / "strange" / ".hg").mkdir(parents=True)
    (tmp_path / "strange" / ".hg" / "requires").write_text("from-the-future\n")
    with pytest.raises(RejectedError, match="nothing was changed"):
        run(fleet, str(tmp_path / "strange"))


def test_its_hgrc_has_no_say(fleet: Fleet, source: Any, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    hgrc = Path(source.root.decode()) / ".hg" / "hgrc"
    hgrc.write_text(f"[extensions]\nevil = {tmp_path}/evil.py\n[hooks]\npreoutgoing = touch {marker}\n")
    run(fleet, source)
    assert not marker.exists()


def test_a_refusal_leaves_the_repository_empty_and_a_doubt_is_said_as_such(fleet: Fleet, source: Any) -> None:
    before = files_of(fleet.primary)
    fleet.agent.failure = RejectedError("push.raced", "repository changed while pushing")
    with pytest.raises(RejectedError, match="repository changed while pushing; nothing was changed"):
        run(fleet, source)
    assert files_of(fleet.primary) == before

    fleet.agent.failure, fleet.agent.is_taken = InDoubtError("log.in-doubt", "no answer"), True
    with pytest.raises(InDoubtError, match="may still appear"):
        run(fleet, source)
    assert run(fleet, source).is_new is False
    fleet.check_replicas()


def test_an_import_that_was_killed_starts_clean(
    fleet: Fleet, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(fleet.primary)
    store = Path(fleet.repo.root.decode()) / ".hg" / "store"

    def die(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importer.sections, "apply_bookmarks", die)
    with pytest.raises(KeyboardInterrupt):
        run(fleet, source)
    monkeypatch.undo()
    (store / "journal").write_text("00changelog.i\x000\n")  # as a kill leaves it
    (store / "00changelog.i").write_bytes(b"torn")

    assert run(fleet, source).is_new
    assert files_of(fleet.primary) != before
    fleet.check_replicas()


def test_a_copy_of_a_fleet_keeps_its_pushlog(fleet: Fleet, tmp_path: Path) -> None:
    old = Fleet.make(tmp_path / "old", is_publishing=True)
    first = commit(old.repo, "first")
    with changing(old.repo):
        commit(old.repo, "second")
        commit(old.repo, "third", (first,))
    move_bookmarks(old.repo, {b"here": first})
    commit(old.repo, "fourth")
    old.messages.clear()  # the log is lost: the copy is all there is

    done = run(fleet, str(old.primary.repo.root.decode()))

    assert done.state.fingerprint == old.state.fingerprint
    assert fleet.messages[-1].envelope.body["push_id"] == 3
    assert fleet.messages[-1].envelope.body["pushes"] == 3
    kept = [(push.push_id, push.at, push.pusher, push.first_rev, push.end_rev) for push in fleet.pushes]
    assert kept == [(push.push_id, push.at, push.pusher, push.first_rev, push.end_rev) for push in old.pushes]
    assert {push.seq for push in fleet.pushes} == {2}
    fleet.check_replicas()
    commit(fleet.repo, "next")
    assert fleet.pushes[-1].push_id == 4
    fleet.check_replicas()
    assert len(old.repo) == 4
