"""What a transaction changed, applied elsewhere from the log, gives the same copy byte by byte."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from mercurial import phases

from hgfleet.errors import PoisonError
from hgfleet.hgext import apply, recovery
from hgfleet.model.ids import Seq
from hgfleet.model.message import Kind, make_message
from tests.support.local_copies import (
    PARTITION,
    REPOSITORY,
    Fleet,
    assert_identical,
    changing,
    commit,
    move_bookmarks,
    obsolete,
    set_phase,
    ui,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet.make(tmp_path)


def test_changesets_and_bookmarks_of_one_transaction_are_one_message_and_one_push(fleet: Fleet) -> None:
    with changing(fleet.repo):
        first = commit(fleet.repo, "first")
        second = commit(fleet.repo, "second")
        move_bookmarks(fleet.repo, {b"one": first, "zwei ä".encode(): second})

    assert [message.envelope.kind for message in fleet.messages] == [Kind.CREATED, Kind.PUSH]
    body = fleet.messages[1].envelope.body
    assert (body["push_id"], body["pushes"]) == (1, 1)
    assert body["changesets"] == {"count": 2, "tip": second.hex()}
    assert body["heads_added"] == [second.hex()]
    [push] = fleet.pushes
    assert (push.push_id, push.seq, push.first_rev, push.end_rev) == (1, 2, 0, 2)
    assert push.at == fleet.messages[1].envelope.at
    fleet.check_replicas()


def test_a_transaction_that_changes_nothing_appends_nothing(fleet: Fleet) -> None:
    node = commit(fleet.repo, "first")
    move_bookmarks(fleet.repo, {b"here": node})
    before = fleet.state

    with changing(fleet.repo):
        pass
    move_bookmarks(fleet.repo, {b"here": node})
    set_phase(fleet.repo, phases.draft, node)

    assert fleet.state == before
    assert len(fleet.messages) == before.seq


def test_what_adds_no_changesets_takes_a_seq_and_no_push_id(fleet: Fleet) -> None:
    node = commit(fleet.repo, "first")
    move_bookmarks(fleet.repo, {b"here": node})
    set_phase(fleet.repo, phases.public, node)
    commit(fleet.repo, "second")

    assert [message.envelope.body.get("push_id") for message in fleet.messages] == [None, 1, None, None, 2]
    assert [push.seq for push in fleet.pushes] == [2, 5]
    fleet.check_replicas()


def test_interleaved_branches_and_merges_keep_their_order(fleet: Fleet) -> None:
    repo = fleet.repo
    root = commit(repo, "root")
    with changing(repo):
        left = right = root
        for number in range(4):
            left = commit(
                repo, f"left {number}", (left,), {"left": b"%d" % number, "shared": b"l%d" % number}
            )
            right = commit(
                repo, f"right {number}", (right,), {"right": b"%d" % number, "shared": b"r%d" % number}
            )
        merged = commit(repo, "merge", (left, right), {"shared": b"both"})
        commit(repo, "other branch", (merged,), extra={b"branch": b"stable"})

    assert fleet.messages[-1].envelope.body["changesets"]["count"] == 10
    fleet.check_replicas()


def test_an_amended_changeset_its_marker_and_a_moved_bookmark_arrive_together(fleet: Fleet) -> None:
    repo = fleet.repo
    root = commit(repo, "root")
    old = commit(repo, "old", (root,))
    move_bookmarks(repo, {b"work": old, b"gone": root})
    with changing(repo):
        new = commit(repo, "new", (root,))
        obsolete(repo, old, new)
        move_bookmarks(repo, {b"work": new, b"gone": None})

    assert fleet.messages[-1].envelope.body["fingerprint"]["obsstore_bytes"] > 1
    fleet.check_replicas()


def test_markers_of_changesets_that_nobody_has_are_replicated(fleet: Fleet) -> None:
    repo = fleet.repo
    with changing(repo) as tr:
        repo.obsstore.create(tr, b"\x11" * 20, (b"\x22" * 20,), metadata={b"user": b"alice"})
    with changing(repo) as tr:
        repo.obsstore.create(tr, b"\x33" * 20, (), metadata={b"user": "bö".encode()})

    assert len(fleet.messages) == 3
    fleet.check_replicas()


def test_phases_move_in_both_directions(fleet: Fleet) -> None:
    repo = fleet.repo
    nodes = [commit(repo, f"changeset {number}") for number in range(6)]
    set_phase(repo, phases.public, nodes[3])
    set_phase(repo, phases.secret, nodes[2])
    set_phase(repo, phases.draft, nodes[4])
    with changing(repo):
        phases.advanceboundary(repo, repo.currenttransaction(), phases.public, [nodes[1]])
        secret = commit(repo, "secret", (nodes[5],))
        phases.retractboundary(repo, repo.currenttransaction(), phases.secret, [secret])

    fleet.check_replicas()


def test_every_kind_of_phase_arrives_in_one_transaction_with_its_changesets(fleet: Fleet) -> None:
    repo = fleet.repo
    root = commit(repo, "root")
    with changing(repo) as tr:
        public = commit(repo, "public", (root,))
        draft = commit(repo, "draft", (public,))
        secret = commit(repo, "secret", (draft,))
        phases.advanceboundary(repo, tr, phases.public, [public])
        phases.retractboundary(repo, tr, phases.secret, [secret])

    assert [repo[node].phase() for node in (root, public, draft, secret)] == [0, 0, 1, 2]
    fleet.check_replicas()


@pytest.mark.parametrize("seed", range(8))
def test_random_histories_are_replicated_exactly(tmp_path: Path, seed: int) -> None:
    fleet = Fleet.make(tmp_path, inline_limit_bytes=400)  # so that blobs are used, too
    dice = random.Random(seed)
    repo = fleet.repo
    nodes = [commit(repo, "root")]
    for step in range(25):
        with changing(repo):
            for _ in range(dice.choice([0, 1, 1, 2])):
                parents = tuple(dice.sample(nodes, min(len(nodes), dice.choice([1, 1, 1, 2]))))
                files = {f"f{dice.randrange(5)}": b"%d\n" % step * dice.randrange(1, 40)}
                nodes.append(commit(repo, f"step {step} {len(nodes)}", parents, files))
            for _ in range(dice.choice([0, 0, 1])):
                set_phase(repo, dice.choice([0, 1, 1, 2]), dice.choice(nodes))
            for _ in range(dice.choice([0, 1])):
                name = b"book%d" % dice.randrange(4)
                target = dice.choice([*nodes, None])
                if target is not None or name in repo._bookmarks:
                    move_bookmarks(repo, {name: target})
            if dice.random() < 0.2:
                old = dice.choice(nodes)
                if repo[old].mutable():
                    with changing(repo) as tr:
                        repo.obsstore.create(tr, old, (bytes([step + 1]) * 20,), metadata={b"user": b"x"})

    assert len(fleet.messages) > 10
    fleet.check_replicas()


def test_a_large_payload_goes_through_the_blob_store(tmp_path: Path) -> None:
    fleet = Fleet.make(tmp_path, inline_limit_bytes=1000)
    commit(fleet.repo, "large", files={"large": random.Random(1).randbytes(20_000)})

    ref = fleet.messages[-1].envelope.payload
    assert not ref.is_inline
    assert [path.name for path in fleet.agent.blobs.iterdir()] == [ref.sha256]
    assert list((fleet.primary.directory / "current" / ".hg").glob("hgfleet-spool/*")) == []
    fleet.check_replicas()


def test_a_message_delivered_twice_changes_nothing(fleet: Fleet) -> None:
    for number in range(3):
        commit(fleet.repo, f"changeset {number}")
    copy = fleet.replica()
    fetch = recovery.blob_fetcher(copy, fleet.agent)
    steps = fleet.steps()
    for end in (1, 2, 2, 3, 1, 4, 4):
        apply.apply_messages(copy, PARTITION, steps[:end], fetch)
        apply.apply_messages(copy, PARTITION, steps[: max(end - 1, 1)], fetch)

    assert_identical(fleet.primary, copy)


def test_a_gap_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    for number in range(3):
        commit(fleet.repo, f"changeset {number}")
    copy = fleet.replica()
    steps = fleet.steps()
    fetch = recovery.blob_fetcher(copy, fleet.agent)
    apply.apply_messages(copy, PARTITION, steps[:2], fetch)

    with pytest.raises(PoisonError) as caught:
        apply.apply_messages(copy, PARTITION, steps[3:], fetch)

    assert caught.value.code == "apply.gap"
    assert caught.value.context["applied_seq"] == 2
    fleet.replay(copy)
    assert_identical(fleet.primary, copy)


def test_another_message_at_the_copys_own_seq_is_a_fork_and_not_a_repetition(fleet: Fleet) -> None:
    commit(fleet.repo, "changeset")
    copy = fleet.replica()
    steps = fleet.steps()
    fetch = recovery.blob_fetcher(copy, fleet.agent)
    apply.apply_messages(copy, PARTITION, steps, fetch)
    message, position = steps[-1]
    other = make_message(replace(message.envelope, trace="another"), message.payload)

    with pytest.raises(PoisonError) as caught:
        apply.apply_messages(copy, PARTITION, [(other, position)], fetch)

    assert caught.value.code == "apply.fork"
    assert_identical(fleet.primary, copy)


def test_what_leads_to_another_state_is_rolled_back_and_what_comes_before_it_stays(fleet: Fleet) -> None:
    for number in range(3):
        commit(fleet.repo, f"changeset {number}")
    good = fleet.steps()
    messages = fleet.messages
    last = messages.pop()
    body = dict(last.envelope.body)
    body["fingerprint"] = {**body["fingerprint"], "obsstore_bytes": 7}
    fleet.agent.write(REPOSITORY, Kind.PUSH, body, last.payload)
    copy = fleet.replica()

    with pytest.raises(PoisonError) as caught:
        fleet.replay(copy)

    assert caught.value.code == "state.differs"
    assert caught.value.context["parts"] == "obsstore_bytes"
    assert caught.value.context["applied_seq"] == 3
    fetch = recovery.blob_fetcher(copy, fleet.agent)
    apply.apply_messages(copy, PARTITION, good, fetch)
    assert_identical(fleet.primary, copy)


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "nothing"])
def test_a_damaged_payload_is_refused_whatever_is_wrong_with_it(fleet: Fleet, damage: str) -> None:
    commit(fleet.repo, "first", files={"file": b"text\n" * 50})
    before = fleet.steps()
    commit(fleet.repo, "second", files={"file": b"other\n" * 50})
    last = fleet.messages.pop()
    payload = bytearray(last.payload)
    if damage == "cut":
        del payload[len(payload) // 2 :]
    elif damage == "flip":
        payload[payload.index(b"second")] ^= 0x55
    elif damage == "swap":
        payload = bytearray(before[-1][0].payload)
    else:
        payload.clear()
    fleet.agent.write(REPOSITORY, Kind.PUSH, dict(last.envelope.body), bytes(payload))
    copy = fleet.replica()

    with pytest.raises(PoisonError) as caught:
        fleet.replay(copy)

    assert caught.value.context["applied_seq"] == 2
    assert copy.state is not None
    assert copy.state.seq == 2


def test_settings_and_voids_move_the_seq_alone(fleet: Fleet) -> None:
    commit(fleet.repo, "first")
    settings = {"writers": ["others"], "is_publishing": True, "description": "new"}
    fleet.agent.write(REPOSITORY, Kind.SETTINGS, {"settings": settings})
    fleet.agent.write(REPOSITORY, Kind.VOID, {})
    standing = fleet.bring_up_to_date()

    assert standing.problem is None
    assert standing.state.seq == 4
    assert standing.state.settings.writers == ("others",)
    assert fleet.repo.publishing()
    fleet.check_replicas()


def test_a_deleted_repository_is_taken_away_and_remembered(fleet: Fleet) -> None:
    commit(fleet.repo, "first")
    fleet.agent.write(REPOSITORY, Kind.DELETED, {})
    copy = fleet.replica()

    state = fleet.replay(copy)

    assert state.seq == 3
    assert not copy.is_present
    assert sorted(path.name for path in copy.directory.iterdir()) == ["deleted.json"]
    assert fleet.replay(copy).seq == 3
    with pytest.raises(Exception, match="was deleted"):
        fleet.bring_up_to_date()
    assert not fleet.primary.is_present


def test_one_repository_object_serves_many_batches(fleet: Fleet) -> None:
    copy = fleet.replica()
    fleet.replay(copy)
    repo = copy.repo
    for number in range(5):
        node = commit(fleet.repo, f"changeset {number}")
        move_bookmarks(fleet.repo, {b"here": node})
        fleet.replay(copy)
        assert copy.repo is repo
        assert_identical(fleet.primary, copy)


def test_a_mirror_refuses_to_be_changed_by_anything_else(fleet: Fleet) -> None:
    copy = fleet.replica()
    fleet.replay(copy)

    with pytest.raises(Exception, match="read-only; nothing was changed"):
        commit(copy.repo, "on a mirror")

    assert copy.state is not None
    assert copy.state.seq == Seq(1)
    assert ui("mirror") is not ui("primary")
