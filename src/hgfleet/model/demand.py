"""Who clones what, how, and from where: the counts by which bundles are made, and which operators look at.

A clone that takes a bundle asks for the manifest; one that takes none asks the origin for everything. Each
host counts what it answers and publishes its last day as a record of the state topic, under `demand/<host>`;
whoever wants to know adds the hosts up.

Promises: pure; parse_demand(key and value of d) == d; a clone is counted once however it ended: one that
asked for the manifest and came to the origin all the same is of reason TRIED there and no second clone.
Does not: count (adapters.demand_counts), or decide what follows (model.bundle_policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hgfleet.model.ids import HostName, RepoId, parse_host_name, parse_repo_id

DAY_SECONDS = 24 * 3600.0
MOST_ROWS = 2000  # of one host's record, the largest counts first; it stays far below a megabyte
_FIELDS_OF_ROW = 5


class CloneReason(StrEnum):
    """Why a clone was answered as it was."""

    BUNDLE = "bundle"  # it asked for the manifest and was offered something
    NO_BUNDLES = "no-bundles"  # there are none for it
    TRIED = "tried"  # it was offered bundles, could read none of them or failed to fetch one, and came here
    BYPASSED = "bypassed"  # the client did not want them, or asked for some changesets only
    NOT_ENABLED = "not-enabled"  # a client of 3.6, where using bundles has to be switched on
    UNKNOWN = "unknown-to-client"  # a client from before bundles


@dataclass(frozen=True, slots=True, order=True)
class DemandKey:
    """What is counted apart."""

    repository: RepoId
    location: str  # `name=value` of the client's place, "" for anywhere
    reason: CloneReason


@dataclass(frozen=True, slots=True)
class DemandCount:
    """How many, and how many bytes they were answered: from the origin, or by the first bundle offered."""

    clones: int = 0
    size_bytes: int = 0

    def __add__(self, other: DemandCount) -> DemandCount:
        return DemandCount(self.clones + other.clones, self.size_bytes + other.size_bytes)


Counts = Mapping[DemandKey, DemandCount]


@dataclass(frozen=True, slots=True)
class Demand:
    """What one host counted in the day before `at` (Unix seconds)."""

    host: HostName
    at: float
    counts: Counts

    @property
    def key(self) -> str:
        return f"demand/{self.host}"

    @property
    def value(self) -> Mapping[str, Any]:
        return {"at": self.at, "rows": rows_of(self.counts)[:MOST_ROWS]}


def rows_of(counts: Counts) -> list[list[str | int]]:
    """Return counts as JSON has them, the largest first."""
    largest = sorted(counts.items(), key=lambda item: (-item[1].clones, item[0]))
    return [
        [key.repository, key.location, key.reason.value, count.clones, count.size_bytes]
        for key, count in largest
    ]


def parse_rows(rows: list[Any]) -> dict[DemandKey, DemandCount]:
    """Parse rows; ValueError or RejectedError for what are none."""
    return dict(_parse_row(row) for row in rows)


def parse_demand(words: list[str], value: Mapping[str, Any]) -> Demand:
    """Parse the key's words and the value; ValueError or RejectedError for what is none."""
    [_, host] = words
    at, rows = value.get("at"), value.get("rows")
    if isinstance(at, bool) or not isinstance(at, int | float) or not isinstance(rows, list):
        raise ValueError("at")
    return Demand(parse_host_name(host), float(at), parse_rows(rows))


def _parse_row(row: Any) -> tuple[DemandKey, DemandCount]:
    if not isinstance(row, list) or len(row) != _FIELDS_OF_ROW:
        raise ValueError("rows")
    repository, location, reason, clones, size_bytes = row
    is_fit = all(isinstance(text, str) for text in (repository, location, reason))
    if not is_fit or not all(type(number) is int and number >= 0 for number in (clones, size_bytes)):
        raise ValueError("rows")
    key = DemandKey(parse_repo_id(repository), location, CloneReason(reason))
    return key, DemandCount(clones, size_bytes)


def total(demands: Iterable[Demand], now: float) -> dict[DemandKey, DemandCount]:
    """Add the hosts up; one that has said nothing for a day has nothing to say of today."""
    sums: dict[DemandKey, DemandCount] = {}
    for demand in demands:
        if now - demand.at <= DAY_SECONDS:
            for key, count in demand.counts.items():
                sums[key] = sums.get(key, DemandCount()) + count
    return sums


def clones_a_day(counts: Counts) -> dict[RepoId, int]:
    """Return how often each repository was cloned."""
    clones: dict[RepoId, int] = {}
    for key, count in counts.items():
        if key.reason is not CloneReason.TRIED:
            clones[key.repository] = clones.get(key.repository, 0) + count.clones
    return clones
