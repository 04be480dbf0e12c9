"""The feed keeps its promises whatever dies, fails or lands late, and each plausible wrong rule is found out.

Promises: every counted entry was visible (N1) and is its repository's next (N2, NoGap); a reader that begins
anywhere with nothing but a position counts what one from the start counts (Same); a repository's entries
carry its path and come only while it is bound (Bound); in the end nothing is missing (Complete).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from hgfleet.model.feed import FeedPosition, FeedReader, FeedVerdict
from hgfleet.model.feed_records import FeedEntry, FeedRecord, Opening
from hgfleet.model.feeding import Feeder, Step, Wanted
from hgfleet.model.ids import CATALOGUE, Offset, RepoId, Seq
from tests.support.protocol_feed import Budget, FeedRules, FeedWorld
from tests.support.protocol_play import BrokenPromiseError

SORTS = {
    " shown": 2.0,
    "land ": 6.0,
    " hears": 6.0,
    " acts": 4.0,
    " marks": 0.6,
    " doubts": 0.4,
    " fails": 0.4,
    "writer starts": 0.2,
    " dies": 0.05,
    " is cut": 0.3,
}


def walk(world: FeedWorld, random: Random, steps: int, tell: Callable[[str], object] = str) -> None:
    world.start()
    for _ in range(steps):
        possible = world.steps()
        if not possible:
            break
        sorts = [sort for sort in SORTS if any(sort in name for name in possible)]
        (sort,) = random.choices(sorts, [SORTS[sort] for sort in sorts])
        name = random.choice([name for name in possible if sort in name])
        tell(name)
        possible[name]()
    world.come_to_rest()


@given(seed=st.integers(0, 2**64))
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_walk_keeps_all_promises(seed: int) -> None:
    walk(FeedWorld(), Random(seed), 200, note)


# -- the wrong rules


class KnowsNoTurns(FeedReader):
    """Counts whatever comes next of a repository, whoever wrote it."""

    def take(self, record: FeedRecord, next_offset: Offset) -> FeedVerdict:
        self.position = FeedPosition(next_offset, max(self.position.turn, record.turn), 0)
        if isinstance(record, Opening):
            return FeedVerdict.OPENED
        return self._take_entry(record, is_next=True)


class LastTurn(FeedReader):
    """Takes the turn that was opened last for the one in force."""

    def take(self, record: FeedRecord, next_offset: Offset) -> FeedVerdict:
        if isinstance(record, Opening):
            self.position = FeedPosition(next_offset, record.turn, 0)
            return FeedVerdict.OPENED
        if record.turn > self.position.turn:
            return super().take(record, next_offset)
        self.position = replace(self.position, turn=record.turn)
        return super().take(record, next_offset)


class ReadsLikeThat(Feeder):
    """A writer with one of these readers."""

    reader_class: type[FeedReader] = LastTurn

    def __init__(self, host: str, **known: object) -> None:
        super().__init__(host, **known)  # type: ignore[arg-type]
        self.reader = self.reader_class(self.reader.position, self.reader.seqs)


class ReadsWithoutTurns(ReadsLikeThat):
    """The other one."""

    reader_class = KnowsNoTurns


class WritesAtOnce(Feeder):
    """Writes entries before it has read its own opening back."""

    def next_step(self, now: float) -> Step:
        step = super().next_step(now)
        if step.opening is not None:
            self._is_open = True
        return step


class DoesNotReadBack(Feeder):
    """Appends again before it has read its last append."""

    def next_step(self, now: float) -> Step:
        self._in_flight.clear()
        return super().next_step(now)


class TakesTheNewest(Feeder):
    """Skips what was overtaken."""

    def _wanted(self, repository: RepoId) -> Wanted:
        wanted = super()._wanted(repository)
        return replace(wanted, after=Seq(max(wanted.upto - 1, wanted.after)))


class KnowsNoBindings(Feeder):
    """Lets repositories in before the catalogue."""

    def _next_wanted(self) -> tuple[Wanted, ...]:
        ready = [r for r in self._pending_since if r != CATALOGUE and r not in self._stalled]
        return tuple(self._wanted(r) for r in ready) or super()._next_wanted()


class IsAheadOfTheMirrors(Feeder):
    """Lets in what one mirror shows."""

    def _wanted(self, repository: RepoId) -> Wanted:
        wanted = super()._wanted(repository)
        return replace(wanted, upto=Seq(wanted.upto + 1))


RIGHT = FeedRules()
WRONG = {
    "a reader knows no turns": (replace(RIGHT, reader=KnowsNoTurns, feeder=ReadsWithoutTurns), "Same"),
    "the last turn opened is in force": (replace(RIGHT, reader=LastTurn, feeder=ReadsLikeThat), "Same"),
    "a writer writes before its opening is read": (replace(RIGHT, feeder=WritesAtOnce), "Same"),
    "a writer does not read its append back": (replace(RIGHT, feeder=DoesNotReadBack), "Same"),
    "a turn goes on after a doubt": (replace(RIGHT, is_doubt_ignored=True), "Same"),
    "a writer believes the marks alone": (replace(RIGHT, is_feed_unread=True), "Same"),
    "what was overtaken is skipped": (replace(RIGHT, feeder=TakesTheNewest), "NoGap"),
    "repositories enter before the catalogue": (replace(RIGHT, feeder=KnowsNoBindings), "Bound"),
    "what one mirror shows enters": (replace(RIGHT, feeder=IsAheadOfTheMirrors), "N1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_breaks_a_promise(name: str) -> None:
    rules, promise = WRONG[name]
    assert any(broken_promise(rules, seed) == promise for seed in range(400))


def broken_promise(rules: FeedRules, seed: int) -> str:
    try:
        walk(FeedWorld(rules, Budget(doubts=5, failures=5, repeats=5)), Random(seed), 200)
    except BrokenPromiseError as error:
        return error.promise
    return ""


def test_the_records_that_walks_make_are_of_both_sorts() -> None:
    world = FeedWorld()
    walk(world, Random(1), 300)
    assert {type(record) for record in world.feed} == {Opening, FeedEntry}
