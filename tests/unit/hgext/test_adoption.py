"""A log that was lost or cut gets the state of a copy back, and every copy follows it from there."""

from __future__ import annotations

from pathlib import Path

import pytest
from mercurial import error, phases

from hgfleet.adapters import view_files
from hgfleet.adapters.agent_answers import AcceptedMessage, AdoptRequest, NamedSnapshot
from hgfleet.errors import PoisonError, RejectedError
from hgfleet.hgext import adopt, apply, generations, recovery, state_digest
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.views import make_view
from hgfleet.model.adoption import Adopted, fill_up
from hgfleet.model.ids import NO_DIGEST, Epoch, Offset, Position, RepoPath, Seq
from hgfleet.model.message import Envelope, Kind, decode_message, encode_message, payload_ref
from tests.support.local_copies import (
    PARTITION,
    REPOSITORY,
    Fleet,
    assert_identical,
    commit,
    files_of,
    move_bookmarks,
    obsolete,
    set_phase,
    ui,
)
from tests.support.memory_agent import EPOCH, MemoryAgent

AUTHOR = {"identity": "host:primary", "trace": "adoption"}


class AdoptingAgent(MemoryAgent):
    """Takes an adoption as the log agent does."""

    def adopt(self, request: AdoptRequest) -> AcceptedMessage:
        messages = self.messages.setdefault(REPOSITORY, [])
        adopted = request.body["adopts"]
        assert isinstance(adopted, dict)
        reset = Envelope(
            kind=Kind.RESET,
            repository=REPOSITORY,
            seq=Seq(max(int(str(adopted["seq"])), len(messages), 1) + 1),
            parent=NO_DIGEST,
            epoch=EPOCH,
            at=1_800_000_000.0,
            identity=request.identity,
            trace=request.trace,
            body=request.body,
            payload=request.payload,
        )
        settings = {"settings": request.body["settings"]}
        created = (
            None
            if messages
            else Envelope(Kind.CREATED, REPOSITORY, Seq(1), NO_DIGEST, EPOCH, 1.0, "", "", settings)
        )
        added = fill_up(created, request.base_seq, request.base_digest, reset, request.inline)
        messages += [decode_message(encode_message(message)) for message in added]
        last = messages[-1]
        position = Position(Offset(len(messages)), Epoch(EPOCH))
        return AcceptedMessage(last.envelope.seq, last.digest, position, last.envelope.at)


@pytest.fixture(params=[1 << 18, 100], ids=["inline", "blob"])
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Fleet:
    """A primary with some of everything, at seq 8."""
    fleet = Fleet.make(tmp_path, inline_limit_bytes=request.param)
    fleet.agent.__class__ = AdoptingAgent
    first = commit(fleet.repo, "first")
    second = commit(fleet.repo, "second")
    third = commit(fleet.repo, "third", (first,))
    set_phase(fleet.repo, phases.public, first)
    set_phase(fleet.repo, phases.secret, third)
    move_bookmarks(fleet.repo, {"über".encode(): second})
    obsolete(fleet.repo, third, second)
    return fleet


def mirror_at(fleet: Fleet, seq: int, *, is_shown: bool = False) -> Copy:
    """Return a replica that has applied the log up to `seq`."""
    copy = fleet.replica(f"mirror-{seq}-{is_shown}")
    apply.apply_messages(copy, PARTITION, fleet.steps()[:seq], recovery.blob_fetcher(copy, fleet.agent))
    state = copy.state
    assert state is not None
    if is_shown:
        with copy.repo.lock():
            make_view(copy.repo, state.seq, state.fingerprint, state.settings)
        view_files.expose(Path(copy.repo.path.decode()), state.seq)
    return copy


def adopt_primary(fleet: Fleet) -> AcceptedMessage:
    """Adopt the primary's copy as it stands."""
    stands_at = Adopted(fleet.state.seq, fleet.state.digest)
    return adopt.adopt(fleet.primary, RepoPath("app"), stands_at, fleet.agent, AUTHOR)


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_what_the_log_lost_is_there_again_on_every_copy(fleet: Fleet, cut: int) -> None:
    level, behind = mirror_at(fleet, 8), mirror_at(fleet, 5)
    digest, files, ids = state_digest.full_digest(fleet.repo), files_of(fleet.primary), len(fleet.pushes)
    del fleet.messages[cut:]

    assert adopt_primary(fleet).seq == 9
    assert files_of(fleet.primary) == files, "reading it changed the copy"
    assert fleet.bring_up_to_date().problem is None
    for copy in (level, behind, fleet.replica("fresh")):
        fleet.replay(copy) if copy is not level else apply.apply_messages(
            copy, PARTITION, fleet.steps()[8:], recovery.blob_fetcher(copy, fleet.agent)
        )
        assert state_digest.full_digest(copy.repo) == digest
    assert_identical(fleet.primary, level)
    assert fleet.state.seq == 9

    commit(fleet.repo, "after")
    assert len(fleet.pushes) == ids + 1
    fleet.replay(behind)
    assert state_digest.full_digest(behind.repo) == state_digest.full_digest(fleet.repo)


def test_a_copy_that_shows_another_state_is_not_changed_under_its_readers(fleet: Fleet) -> None:
    copy = mirror_at(fleet, 5, is_shown=True)
    before = files_of(copy)
    del fleet.messages[3:]
    adopt_primary(fleet)

    with pytest.raises(PoisonError) as refused:
        fleet.replay(copy)

    assert refused.value.code == "copy.replaced"
    assert files_of(copy) == before


def test_a_primary_that_is_not_the_copy_adopted_gets_a_new_generation(fleet: Fleet) -> None:
    older = Copy(ui(), fleet.directory / "older" / REPOSITORY)
    apply.apply_messages(older, PARTITION, fleet.steps()[:4], recovery.blob_fetcher(older, fleet.agent))
    root = generations.current_root(older.directory)
    open_before = older.repo
    open_before.hgfleet.agent_client = fleet.agent
    del fleet.messages[2:]
    adopt_primary(fleet)

    with pytest.raises(error.Abort, match=r"replaced.*nothing was changed"):
        commit(open_before, "into what is not in use any more")
    standing = recovery.bring_up_to_date(older, REPOSITORY, fleet.agent)

    assert standing.problem is None
    assert standing.state.seq == 9
    assert generations.current_root(older.directory) != root
    assert state_digest.full_digest(older.repo) == state_digest.full_digest(fleet.repo)


def test_a_copy_without_a_push_of_the_log_is_not_adopted(fleet: Fleet) -> None:
    fleet.agent.write(REPOSITORY, Kind.PUSH, {"push_id": 4, "changesets": {"count": 1, "tip": "0" * 40}})
    count = len(fleet.messages)
    with pytest.raises(RejectedError) as refused:
        adopt_primary(fleet)
    assert refused.value.code == "adopt.fork"
    assert len(fleet.messages) == count


def test_a_log_that_forgot_every_push_before_its_snapshots_adopts_nothing(fleet: Fleet) -> None:
    del fleet.messages[5:]
    trim(fleet, 5)
    with pytest.raises(RejectedError) as refused:
        adopt_primary(fleet)
    assert (refused.value.code, "reconcile" in refused.value.hint) == ("adopt.trimmed", True)
    assert len(fleet.messages) == 5


def test_a_trimmed_log_adopts_a_copy_that_has_the_pushes_which_it_still_has(fleet: Fleet) -> None:
    del fleet.messages[5:]
    trim(fleet, 1)
    adopt_primary(fleet)
    assert fleet.bring_up_to_date().problem is None


def test_a_copy_without_a_push_of_a_trimmed_log_is_not_adopted(fleet: Fleet) -> None:
    fleet.agent.write(REPOSITORY, Kind.PUSH, {"push_id": 4, "changesets": {"count": 1, "tip": "0" * 40}})
    trim(fleet, len(fleet.messages) - 1)
    with pytest.raises(RejectedError) as refused:
        adopt_primary(fleet)
    assert refused.value.code == "adopt.fork"


def trim(fleet: Fleet, seq: int) -> None:
    """Have the log forget what a snapshot at `seq` covers."""
    digest, payload = fleet.messages[seq - 1].digest, payload_ref(b"snapshot")
    fleet.agent.named = [NamedSnapshot(Seq(seq), digest, NO_DIGEST, 1, payload, 1.0, "mirror1")]
    fleet.agent.first_seq = seq + 1


def test_a_copy_that_stands_elsewhere_than_reported_is_not_adopted(fleet: Fleet) -> None:
    del fleet.messages[4:]
    with pytest.raises(RejectedError) as refused:
        adopt.adopt(fleet.primary, RepoPath("app"), Adopted(Seq(7), fleet.state.digest), fleet.agent, AUTHOR)
    assert refused.value.code == "adopt.changed"
    assert len(fleet.messages) == 4


def test_a_deletion_that_the_log_has_lost_is_not_undone(fleet: Fleet) -> None:
    fleet.agent.write(REPOSITORY, Kind.DELETED, {})
    with pytest.raises(RejectedError, match="deleted"):
        fleet.bring_up_to_date()
    del fleet.messages[-1:]
    with pytest.raises(RejectedError) as refused:
        fleet.bring_up_to_date()
    assert refused.value.code == "log.behind"
    assert not fleet.primary.is_present
