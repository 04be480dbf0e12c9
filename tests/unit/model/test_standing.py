"""Which snapshots and which bundle manifest are in force."""

from hgfleet.model.acceptance import Verdict
from hgfleet.model.ids import NO_DIGEST, Digest
from hgfleet.model.message import Kind, Message
from hgfleet.model.standing import Standing, manifest_body
from tests.support.messages import R1, message
from tests.support.messages import snapshot_message as snapshot


def manifest(replaces: Digest, trace: str = "t") -> Message:
    return message(Kind.BUNDLES, R1, 1, body=manifest_body(replaces, []), trace=trace)


def test_the_snapshot_of_the_highest_seq_is_in_force_whenever_it_lands() -> None:
    standing = Standing()
    five, three, nine = snapshot(5), snapshot(3), snapshot(9)
    assert [standing.take(m, Verdict.ABOUT) for m in (five, three, nine, snapshot(9, trace="u"))] == [
        True,
        False,
        True,
        False,
    ]
    assert standing.snapshots == [nine, five]
    standing.take(snapshot(12), Verdict.ABOUT)
    assert [m.envelope.seq for m in standing.snapshots] == [12, 9]


def test_a_later_look_at_the_same_seq_replaces_so_that_a_repository_at_rest_gets_two() -> None:
    standing = Standing()
    early, late = snapshot(5, as_of=70), snapshot(5, as_of=90)
    assert [standing.take(m, Verdict.ABOUT) for m in (snapshot(2), early, late, early)] == [
        *(True, True, True),
        False,
    ]
    assert standing.snapshots == [late, early]
    assert standing.newest is not None
    assert standing.older is not None
    assert (standing.newest.as_of, standing.older.as_of) == (90, 70)


def test_what_describes_no_snapshot_changes_nothing() -> None:
    standing = Standing()
    assert not standing.take(message(Kind.SNAPSHOT, R1, 5), Verdict.ABOUT)
    assert not standing.take(snapshot(5, as_of=-1), Verdict.ABOUT)
    assert standing.newest is None


def test_a_manifest_replaces_the_one_it_was_made_from() -> None:
    standing = Standing()
    first = manifest(NO_DIGEST)
    assert standing.take(first, Verdict.ABOUT)
    late = manifest(NO_DIGEST, "late")
    second = manifest(first.digest)
    assert [standing.take(m, Verdict.ABOUT) for m in (late, second, late, first)] == [
        False,
        True,
        False,
        False,
    ]
    assert standing.manifest == second


def test_what_the_reader_ignored_is_not_in_force() -> None:
    standing = Standing()
    assert not standing.take(snapshot(5), Verdict.IGNORED)
    assert not standing.take(message(Kind.CHECKPOINT, R1, 5), Verdict.ABOUT)
    assert (standing.snapshots, standing.manifest) == ([], None)
