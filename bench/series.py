"""What was measured: many values of one thing, and how two of them compare.

Promises: pure. Medians and percentiles only; a mean would let one stalled run speak for all.
Does not: measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one thing, in the order in which they were measured; never empty."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value in the middle."""
        return statistics.median(self.values)

    def percentile(self, percent: float) -> float:
        """Return the smallest value that at least so many percent of all do not exceed."""
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]

    def scaled(self, factor: float, unit: str) -> Series:
        """Return the same in another unit."""
        return Series(unit, tuple(value * factor for value in self.values))


def milliseconds(seconds: Sequence[float]) -> Series:
    """Return durations as a series in milliseconds."""
    return Series("ms", tuple(seconds)).scaled(1000, "ms")


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit from the design's budgets."""

    limit: float
    unit: str = "×"
    at_most: bool = True
    percent: float = 50  # of which percentile it speaks, for a goal that is no ratio

    def is_met(self, value: float) -> bool:
        """Say whether the value keeps it."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        which = "" if self.percent == 50 else f"p{self.percent:g} "
        return f"{which}{'≤' if self.at_most else '≥'} {self.limit:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result: ours, what it is compared with, and what was hoped for.

    `ratio_of` says how the two are divided: "ours/plain" for what should be small beside plain Mercurial,
    "plain/ours" for "so many times less or faster".
    """

    benchmark: str
    what: str
    ours: Series
    plain: Series | None = None
    plain_what: str = ""
    goal: Goal | None = None
    ratio_of: str = "ours/plain"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How the medians compare; None when there is nothing beside."""
        if self.plain is None:
            return None
        above, below = self.ours.median, self.plain.median
        if self.ratio_of == "plain/ours":
            above, below = below, above
        return above / below if below else math.inf

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is kept; None when there is none."""
        if self.goal is None:
            return None
        ratio = self.ratio
        return self.goal.is_met(self.ours.percentile(self.goal.percent) if ratio is None else ratio)
