"""When a coordinator may claim: who holds the claim is left alone while there are signs of life.

A claim always counts and always deposes the one before (model.fleet), so this decides about peace, not about
safety: two coordinators that both claimed whenever they could would take turns in deposing each other.

Promises: it claims at once where there is no claim, where its holder said that it leaves, and where an
earlier life of the same process, or the process that its host ran before, holds it. Otherwise only after a
whole lease without a sign by its own clock *and* after reading to an end that was fetched after that, so that
one which stood still deposes nobody for its own sleep.
Does not: publish, fetch or wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from hgfleet.model.fleet_records import Claim, LifeSign, StateRecord
from hgfleet.model.ids import Offset


class Move(Enum):
    """What follows."""

    WAIT = "wait"
    FETCH_END = "fetch-end"  # fetch the topic's end afresh and call `note_end`
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Heritage:
    """What of the past is this process's own: the claims of its earlier lives, in its first also its host's.

    Only the claim that stood there when the process began counts as its host's: of two that run on one host
    by mistake the second takes over once, and the first stands by.
    """

    lives: frozenset[str] = frozenset()
    is_first: bool = True


FRESH = Heritage()


class Succession:
    """Stands by until it may claim."""

    def __init__(self, claim: Claim, lease_seconds: float, heritage: Heritage = FRESH) -> None:
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._heritage = heritage
        self._holder: Claim | None = None
        self._was_found = False  # the claim stood there before the first end that was read to
        self._is_leaving = False
        self._heard_at = 0.0
        self.is_level = False  # has read to an end
        self._is_end_asked = False
        self._end: Offset | None = None

    def take(self, record: StateRecord | None, claim_in_force: Offset, now: float) -> None:
        """Take the next record of the state topic, after the fold has."""
        match record:
            case Claim():
                self._holder, self._was_found = record, not self.is_level
                self._hear(now, is_leaving=False)
            case LifeSign() if record.claim == claim_in_force:
                self._hear(now, is_leaving=record.is_leaving)

    def note_end(self, end: Offset) -> None:
        """Take the topic's end, fetched after FETCH_END was asked for."""
        self._end = end

    def withdraw(self) -> None:
        """Undo FETCH_END, which did not happen."""
        self._forget_end()

    def judge(self, offset: Offset, now: float) -> Move:
        """Say what follows from what was read up to `offset`."""
        if not self.is_level:
            if not self._has_read_to_end(offset):
                return self._ask()
            self.is_level = True
            self._forget_end()
        if self._may_claim_at_once():
            return Move.CLAIM
        if now - self._heard_at < self._lease_seconds:
            return Move.WAIT
        return Move.CLAIM if self._has_read_to_end(offset) else self._ask()

    def _hear(self, now: float, *, is_leaving: bool) -> None:
        self._heard_at, self._is_leaving = now, is_leaving
        if self.is_level:
            self._forget_end()

    def _may_claim_at_once(self) -> bool:
        holder, heritage = self._holder, self._heritage
        if holder is None or self._is_leaving or holder.life in heritage.lives:
            return True
        return heritage.is_first and self._was_found and holder.host == self._claim.host

    def _has_read_to_end(self, offset: Offset) -> bool:
        return self._end is not None and offset >= self._end

    def _ask(self) -> Move:
        if self._is_end_asked:
            return Move.WAIT
        self._is_end_asked = True
        return Move.FETCH_END

    def _forget_end(self) -> None:
        self._is_end_asked, self._end = False, None
