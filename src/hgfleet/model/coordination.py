"""The coordinator's brain: what it decides next, from what it has read and what its clock says.

It stands by until it may claim (model.succession), and then gives a sign of life four times a lease.

Promises: it decides only under its own claim and only while no newer one was read; the next decision is made
after the one before was read back; a member is evicted only after a whole lease without a word of it *and*
after reading to an end of the topic that was fetched when the lease was over, so a stalled coordinator evicts
nobody for its own sleep. Killed at any step, the next life derives everything again.
Does not: publish, fetch or wait; its caller does what `next_step` says and reports back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Any

from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Decision,
    Evict,
    Heartbeat,
    LifeSign,
    Member,
    Recount,
    Report,
    StateRecord,
    Ticket,
    Watermark,
)
from hgfleet.model.ids import Offset
from hgfleet.model.succession import FRESH, Heritage, Move, Succession

SIGNS_PER_LEASE = 4
MAX_SIGN_SECONDS = 5.0  # they also tell people how far the feed is
MAX_SUPERSEDED = 500  # tombstones per batch


class Act(Enum):
    """What the caller should do."""

    WAIT = "wait"  # until more records come, or a lease may be over
    CLAIM = "claim"  # publish `records`: the claim
    SIGN = "sign"  # publish `records`: a sign of life, then ask again
    DECIDE = "decide"  # publish `records`: one batch of decisions
    FETCH_END = "fetch-end"  # fetch the topic's end afresh and call `note_end`
    CLEAN = "clean"  # publish a tombstone for each of `keys`
    STEP_DOWN = "step-down"  # a newer claim was read; begin again as a new life, if at all


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    act: Act
    records: tuple[StateRecord, ...] = ()
    keys: tuple[str, ...] = ()


WAIT = Step(Act.WAIT)


class Coordinator:
    """One life of a coordinator; `now` is always the clock of its host that goes on during a suspend.

    A decision that stays in doubt is settled by a new life: behind its claim the old one does not count.
    """

    def __init__(self, claim: Claim, lease_seconds: float, floor: int, heritage: Heritage = FRESH) -> None:
        self.view = FleetView(floor=floor, is_cleaning=True)
        self.claim = claim
        self._lease_seconds = lease_seconds
        self._succession = Succession(claim, lease_seconds, heritage)
        self._sign_due_at = 0.0
        self._listening_since: float | None = None
        self._is_claim_sent = False
        self._number = 0
        self._unread: set[str] = set()  # keys of the decision in flight
        self._heard_at: dict[Member, float] = {}
        self._suspects: set[Member] = set()  # their lease was over when `_end` was asked for
        self._end: Offset | None = None

    @property
    def number(self) -> Offset | None:
        """The claim's number, None until it was read back."""
        return self.view.claim_of(self.claim)

    @property
    def has_judged(self) -> bool:
        """Whether it has read to an end, and so knows who holds the claim."""
        return self._succession.is_level

    @property
    def has_claimed(self) -> bool:
        """Whether its claim was sent, landed or not."""
        return self._is_claim_sent

    @property
    def is_deposed(self) -> bool:
        """Whether a newer claim was read."""
        return self.number is not None and self.view.claim != self.number

    def take(self, key: str, value: Any, offset: Offset, now: float) -> None:
        """Take the next record of the state topic."""
        self._listen(now)
        record = self.view.take(key, value, offset)
        self._succession.take(record, self.view.claim, now)
        self._unread.discard(key)
        if isinstance(record, Heartbeat | Report):
            self._heard_at[record.member] = now
            self._suspects.discard(record.member)

    def next_step(self, now: float) -> Step:
        """Return what to do now; ask again after every record, answer or time-out."""
        self._listen(now)
        number = self.number
        if number is None:
            return self._claim_or_wait(now)
        if self.is_deposed:
            return Step(Act.STEP_DOWN)
        if now >= self._sign_due_at:
            self._sign_due_at = now + min(self._lease_seconds / SIGNS_PER_LEASE, MAX_SIGN_SECONDS)
            return Step(Act.SIGN, (LifeSign(number, self.claim.host),))
        if self._unread:
            return WAIT
        decisions = self._decisions(Ticket(number, self._number + 1), now)
        if decisions:
            return self._send(decisions)
        if self._wants_end(now):
            return Step(Act.FETCH_END)
        return self._clean()

    def note_end(self, end: Offset) -> None:
        """Take the topic's end, fetched after FETCH_END was asked for; None of it may be older than that."""
        self._end = end
        self._succession.note_end(end)

    def farewell(self) -> LifeSign | None:
        """Return the sign that this life leaves, deciding nothing after it; None when it holds no claim."""
        number = self.number
        if number is None or self.is_deposed:
            return None
        return LifeSign(number, self.claim.host, is_leaving=True)

    def withdraw(self) -> None:
        """Undo the last step, which surely did not happen (the log's TransientError)."""
        self._unread.clear()
        self._suspects.clear()
        self._succession.withdraw()
        if self.number is None:
            self._is_claim_sent = False

    def _claim_or_wait(self, now: float) -> Step:
        if self._is_claim_sent:
            return WAIT
        match self._succession.judge(self.view.offset, now):
            case Move.FETCH_END:
                return Step(Act.FETCH_END)
            case Move.CLAIM:
                self._is_claim_sent = True
                return Step(Act.CLAIM, (self.claim,))
            case Move.WAIT:
                return WAIT

    def _listen(self, now: float) -> None:
        if self._listening_since is None:
            self._listening_since = now

    def _send(self, decisions: list[Decision]) -> Step:
        self._number += 1
        self._unread = {decision.key for decision in decisions}
        return Step(Act.DECIDE, tuple(decisions))

    def _decisions(self, ticket: Ticket, now: float) -> list[Decision]:
        """Return one batch of one sort; each sort is judged on what the one before has led to."""
        out = set(self.view.replaced()) | self._silent(now)
        if out:
            return [Evict(ticket, member) for member in sorted(out)]
        admissible = self.view.admissible()
        if admissible:
            return [Admit(ticket, member) for member in admissible]
        returning = self.view.recountable()
        if returning:
            return [Recount(ticket, member, repository, parks) for member, repository, parks in returning]
        return [Watermark(ticket, r, seq) for r, seq in sorted(self.view.movable().items())]

    def _silent(self, now: float) -> set[Member]:
        """Return the members whose eviction is due: silent for a lease, and at a fresh end still."""
        if self._end is None or self.view.offset < self._end:
            return set()
        return self._suspects & self._overdue(now)

    def _overdue(self, now: float) -> set[Member]:
        return {m for m in self.view.counted if now - self._last_heard(m) >= self._lease_seconds}

    def _last_heard(self, member: Member) -> float:
        """Return from when to time a member: from its last word, or since this life listens.

        A record is heard after it was sent, so a life that stood by may evict as soon as it has claimed.
        """
        return self._heard_at.get(member, self._listening_since or 0.0)

    def _wants_end(self, now: float) -> bool:
        overdue = self._overdue(now)
        if not overdue - self._suspects:
            return False
        self._suspects, self._end = overdue, None
        return True

    def _clean(self) -> Step:
        keys = self.view.superseded or {}
        batch = tuple(islice(keys, MAX_SUPERSEDED))
        for key in batch:
            del keys[key]
        return Step(Act.CLEAN, keys=batch) if batch else WAIT

    def lease_ends_at(self) -> float | None:
        """Return when the next lease is over if nothing is heard; None with nobody counted."""
        ends: Iterable[float] = (self._last_heard(m) + self._lease_seconds for m in self.view.counted)
        return min(ends, default=None)
