"""What a pusher is told, and what a copy is left with, for every answer that the log can give."""

from pathlib import Path
from typing import Any

import pytest
from mercurial import error

from hgfleet.errors import InDoubtError, RejectedError, TransientError
from hgfleet.hgext import binding, identity, session_context
from hgfleet.hgext.session_context import RecordedChange
from tests.support.local_copies import (
    Fleet,
    changing,
    commit,
    files_of,
    move_bookmarks,
    obsolete,
    store_of,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    session_context.take_recorded()
    fleet = Fleet.make(tmp_path)
    commit(fleet.repo, "first")
    session_context.take_recorded()
    return fleet


def said_by(fleet: Fleet, action: Any) -> str:
    """Run something that aborts; return everything that was said."""
    repo = fleet.repo
    repo.ui.pushbuffer(error=True)
    try:
        with pytest.raises(error.Abort) as caught:
            action()
    finally:
        output = repo.ui.popbuffer()
    return (output + caught.value.message).decode()


@pytest.mark.parametrize(
    "failure",
    [
        RejectedError("push.raced", "repository changed while pushing"),
        TransientError("log.unreachable", "the log did not answer"),
        TransientError("local.unreachable", "the fleet's local service does not answer"),
    ],
    ids=str,
)
def test_a_refused_append_changes_nothing_and_says_so(fleet: Fleet, failure: Exception) -> None:
    before, seq = files_of(fleet.primary), fleet.state.seq
    fleet.agent.failure = failure  # type: ignore[assignment]

    said = said_by(fleet, lambda: commit(fleet.repo, "refused"))

    assert said.endswith("; nothing was changed")
    assert files_of(fleet.primary) == before
    assert fleet.state.seq == seq
    assert session_context.take_recorded() == []
    commit(fleet.repo, "next")
    fleet.check_replicas()


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_doubtful_append_never_says_that_nothing_was_changed(fleet: Fleet, is_taken: bool) -> None:
    fleet.agent.failure = InDoubtError("log.in-doubt", "no answer")
    fleet.agent.is_taken = is_taken

    said = said_by(fleet, lambda: commit(fleet.repo, "doubtful"))

    assert said == "not confirmed: it may still appear; push again to find out"
    assert len(fleet.repo.changelog) == 1
    assert session_context.take_recorded() == []
    fleet.bring_up_to_date()
    assert len(fleet.repo.changelog) == 1 + is_taken
    commit(fleet.repo, "next")
    fleet.check_replicas()


class Finalizer:
    """Makes a finalizer of the next transaction fail."""

    def __init__(self, repo: Any, failure: BaseException, name: bytes = b"zz-test") -> None:
        self._repo, self._failure, self._name = repo, failure, name

    def __enter__(self) -> None:
        def fail(_tr: Any) -> None:
            raise self._failure

        original = type(self._repo).transaction

        def transaction(repo: Any, desc: bytes, report: Any = None) -> Any:
            tr = original(repo, desc, report)
            tr.addfinalize(self._name, fail)
            self.__exit__()
            return tr

        self._original = original
        type(self._repo).transaction = transaction

    def __exit__(self, *_: object) -> None:
        type(self._repo).transaction = self._original


def test_accepted_and_failed_here_is_completed_at_once_and_called_accepted(fleet: Fleet) -> None:
    repo = fleet.repo
    repo.ui.pushbuffer(error=True)
    with Finalizer(repo, OSError(28, "No space left on device")):
        node = commit(repo, "accepted")
    said = repo.ui.popbuffer().decode()

    assert said == "accepted as push 2; this host will complete it\n"
    assert repo[node].rev() == 1
    assert session_context.take_recorded() == [RecordedChange(3, 2, (node.hex(),))]
    fleet.check_replicas()


def test_accepted_and_failing_again_says_accepted_and_nothing_else(fleet: Fleet) -> None:
    repo = fleet.repo
    agent = fleet.agent
    read = agent.read

    def unreadable(*_args: object, **_named: object) -> Any:
        raise OSError(28, "No space left on device")

    agent.read = unreadable  # type: ignore[method-assign]
    with Finalizer(repo, OSError(28, "No space left on device")):
        said = said_by(fleet, lambda: commit(repo, "accepted"))
    assert said == "accepted as push 2; this host will complete it"
    assert len(fleet.repo.changelog) == 1

    agent.read = read  # type: ignore[method-assign]
    assert fleet.bring_up_to_date().problem is None
    assert len(fleet.repo.changelog) == 2
    fleet.check_replicas()


def test_what_fails_after_the_commit_point_is_not_told_to_the_pusher(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    repo = fleet.repo
    repo.ui.pushbuffer(error=True)
    monkeypatch.setattr(type(repo), "updatecaches", fail)
    node = commit(repo, "committed")
    said = repo.ui.popbuffer()

    assert said == b""
    assert repo[node].rev() == 1
    assert session_context.take_recorded() == [RecordedChange(3, 2, (node.hex(),))]
    monkeypatch.undo()
    fleet.check_replicas()


def test_what_fails_before_the_append_is_not_called_accepted(fleet: Fleet) -> None:
    def refuse(_tr: Any) -> None:
        raise error.Abort(b"a check says no")

    repo = fleet.repo
    messages = len(fleet.messages)

    def change() -> None:
        with changing(repo) as tr:
            commit(repo, "rejected")
            tr.addvalidator(b"001-userhooks-like", refuse)

    assert said_by(fleet, change) == "a check says no"
    assert len(fleet.messages) == messages
    assert len(fleet.repo.changelog) == 1


def test_two_transactions_under_one_lock_are_two_messages_in_a_row(fleet: Fleet) -> None:
    repo = fleet.repo
    with repo.lock():
        node = commit(repo, "second")
        move_bookmarks(repo, {b"here": node})
    assert fleet.state.seq == 4
    fleet.check_replicas()


def test_a_copy_behind_its_log_catches_up_when_it_is_locked(fleet: Fleet, tmp_path: Path) -> None:
    repo = fleet.repo
    commit(repo, "second")
    old = fleet.replica("primary-of-old")
    fetched = fleet.steps()[:2]
    from hgfleet.hgext import apply, recovery
    from tests.support.local_copies import PARTITION, ui

    apply.apply_messages(old, PARTITION, fetched, recovery.blob_fetcher(old, fleet.agent))
    behind = type(old)(ui(), old.directory)
    binding.of(behind.repo).agent_client = fleet.agent

    node = commit(behind.repo, "third", (behind.repo.changelog.tip(),))

    assert behind.repo[node].rev() == 2
    assert len(fleet.messages) == 4


@pytest.mark.parametrize("desc", [b"strip", b"repair", b"upgrade"])
def test_transactions_that_rewrite_history_are_refused(fleet: Fleet, desc: bytes) -> None:
    with pytest.raises(error.Abort, match="cannot follow; nothing was changed"), changing(fleet.repo, desc):
        raise AssertionError("unreachable")


def test_a_standby_refuses_writes(fleet: Fleet) -> None:
    fleet.agent.serving_epoch = 0  # type: ignore[assignment]
    with pytest.raises(error.Abort, match="does not accept changes; nothing was changed"):
        commit(fleet.repo, "on a standby")


def test_markers_reach_the_disk_after_the_append_only(fleet: Fleet) -> None:
    repo = fleet.repo
    old = commit(repo, "old")
    seen = []

    def look(tr: Any) -> None:
        seen.append((store_of(fleet.primary) / "obsstore").exists())
        seen.append(repo.obsstore.successors.keys() == {old})
        seen.append(repo[old].obsolete())

    with changing(repo) as tr:
        new = commit(repo, "new", (repo[0].node(),))
        obsolete(repo, old, new)
        tr.addvalidator(b"zzzzz-after-the-append", look)

    assert seen == [False, True, True]
    assert (store_of(fleet.primary) / "obsstore").stat().st_size == fleet.state.fingerprint.obsstore_bytes


def test_a_refused_change_with_markers_leaves_no_trace_of_them(fleet: Fleet) -> None:
    repo = fleet.repo
    old = commit(repo, "old")
    fleet.agent.failure = RejectedError("push.raced", "repository changed while pushing")

    def amend() -> None:
        with changing(repo):
            new = commit(repo, "new", (repo[0].node(),))
            obsolete(repo, old, new)

    said_by(fleet, amend)

    assert not (store_of(fleet.primary) / "obsstore").exists()
    assert len(repo.obsstore) == 0
    assert not fleet.repo[old].obsolete()


def test_the_identity_of_a_session_is_in_the_message_and_the_pushlog(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_assumed", [])
    identity.assume("alice", frozenset({"developers"}), "trace-7")
    commit(fleet.repo, "by alice")

    envelope = fleet.messages[-1].envelope
    assert envelope.body["pusher"] == "alice"
    assert fleet.pushes[-1].pusher == "alice"
    assert [push.pusher.startswith("host:primary/") for push in fleet.pushes] == [True, False]
