"""Which copy needs work next, and what cures a parked one."""

from __future__ import annotations

import pytest

from hgfleet.model.ids import Partition, RepoId, Seq
from hgfleet.replication.mirror_copies import MAX_STEP, Copies, Copy, Cure, cure_for

A, B = RepoId("a" * 32), RepoId("b" * 32)
P = Partition(0)


def test_copies_wait_in_turn_and_are_handed_out_once() -> None:
    copies = Copies()
    copies.advance(A, P, Seq(100))
    copies.advance(B, P, Seq(1))
    copies.advance(A, P, Seq(200))
    first = copies.next_due(0.0)
    assert first is not None
    assert first.repository == A
    first.is_busy = True
    copies.wake(first)
    second = copies.next_due(0.0)
    assert second is not None
    assert second.repository == B
    second.is_busy = True
    assert copies.next_due(0.0) is None, "both are being worked on"
    first.is_busy, first.applied = False, Seq(50)
    copies.wake(first)
    assert copies.next_due(0.0) is first, "what is left of it comes behind the others"


def test_a_level_copy_needs_nothing() -> None:
    copies = Copies()
    copy = copies.advance(A, P, Seq(3))
    copy.applied = Seq(3)
    assert copies.next_due(0.0) is None
    copies.advance(A, P, Seq(2))
    assert copy.last == 3, "an old word changes nothing"


def test_a_resting_copy_comes_back_by_itself_when_its_time_has_come() -> None:
    copies = Copies()
    copy = copies.advance(A, P, Seq(3))
    assert copies.next_due(0.0) is copy
    copies.delay(copy, 10.0)
    copies.wake(copy)
    assert copies.next_due(9.9) is None
    assert copies.next_time() == 10.0
    assert copies.next_due(10.0) is copy
    assert copies.next_time() is None


def test_a_deletion_waits_until_it_is_allowed() -> None:
    copy = Copy(A, P, applied=Seq(4), last=Seq(5), target=Seq(5), is_held=True)
    assert not copy.needs_work
    assert copy.is_level, "it is as far as it may be"
    copy.may_delete = True
    assert copy.needs_work


def test_a_copy_that_was_left_in_the_middle_is_looked_at_before_it_counts_as_level() -> None:
    copy = Copy(A, P, applied=Seq(5), last=Seq(5), target=Seq(5), is_checked=False)
    assert copy.needs_work
    assert not copy.is_level


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("message.too-new: message of a newer format", Cure.RETRY),
        ("payload.damaged: cut off", Cure.RETRY),
        ("blob.missing: no such blob", Cure.RETRY),
        ("worker.failed: no space left", Cure.RETRY),
        ("state.differs: applying it led to another state", Cure.REBUILD),
        ("payload.misfit: the payload does not fit this copy", Cure.REBUILD),
        ("seqfile.damaged: damaged", Cure.REBUILD),
        ("worker.died: an apply worker ended before its answer", Cure.REBUILD),
        ("message.gap: a message that does not follow the copy's last one", Cure.PERSON),
    ],
)
def test_the_cure_follows_from_whether_the_message_the_copy_or_the_log_is_at_fault(
    reason: str, cure: Cure
) -> None:
    assert cure_for(reason) is cure
    copy = Copy(A, P, applied=Seq(1), last=Seq(2), parked=reason)
    assert copy.needs_work is (cure is not Cure.PERSON)


def test_batches_grow_while_they_are_quick_and_shrink_when_they_are_slow() -> None:
    copy = Copy(A, P)
    for _ in range(20):
        copy.note_batch(copy.step, 0.01)
    assert copy.step == MAX_STEP
    copy.note_batch(3, 0.01)
    assert copy.step == MAX_STEP
    for _ in range(20):
        copy.note_batch(copy.step, 1.0)
    assert copy.step == 1


def test_failures_are_forgotten_by_success_but_not_by_a_step_of_a_cure() -> None:
    copy = Copy(A, P, failures=3, parked="state.differs: x")
    copy.note_batch(1, 0.1)
    assert copy.failures == 3
    copy.parked = ""
    copy.note_batch(1, 0.1)
    assert copy.failures == 0


def test_a_damaged_copy_that_is_ahead_of_its_log_is_not_built_anew_from_less() -> None:
    copies = Copies()
    copy = copies.advance(A, P, Seq(5))
    copy.applied, copy.parked = Seq(5), "state.differs: it does"
    copies.restart({})
    copies.wake(copy)
    assert copies.next_due(0.0) is None
    copies.advance(A, P, Seq(6))
    assert copies.next_due(0.0) is copy, "adopted, the log has more than the copy again"
