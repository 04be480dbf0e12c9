"""What `hgfleet bundles list --demand` shows: who clones what from where, and how they are served.

Promises: pure but for printing; the place with the most clones comes first; a place that no store lies in is
marked, as that is where another store would help.
Does not: ask anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from hgfleet.cli.output import print_table
from hgfleet.model.demand import CloneReason, Counts, DemandCount, DemandKey

_ANYWHERE = "anywhere else"
_NOTHING = DemandCount()


@dataclass(slots=True)
class PlaceDemand:
    """The clones of one place within a day."""

    location: str
    has_store: bool
    counts: dict[CloneReason, DemandCount] = field(default_factory=dict)

    @property
    def by_bundle(self) -> DemandCount:
        """Clones that took a bundle: all that were offered some, less those that came all the same."""
        offered, tried = (self.counts.get(r, _NOTHING) for r in (CloneReason.BUNDLE, CloneReason.TRIED))
        clones = max(0, offered.clones - tried.clones)
        share = clones / offered.clones if offered.clones else 0.0
        return DemandCount(clones, round(offered.size_bytes * share))

    @property
    def from_origin(self) -> DemandCount:
        """Clones that the mirrors answered themselves."""
        others = [count for reason, count in self.counts.items() if reason is not CloneReason.BUNDLE]
        return sum(others, _NOTHING)

    @property
    def clones(self) -> int:
        """All of them, each once."""
        return self.by_bundle.clones + self.from_origin.clones

    def to_json(self) -> dict[str, Any]:
        """Return the form for programs."""
        return {
            "location": self.location,
            "has_store": self.has_store,
            "clones": self.clones,
            "by_bundle": _count_json(self.by_bundle),
            "from_origin": {
                reason.value: _count_json(count)
                for reason, count in sorted(self.counts.items())
                if reason is not CloneReason.BUNDLE
            },
        }


def by_place(counts: Counts, stores: Iterable[Mapping[str, str]]) -> list[PlaceDemand]:
    """Gather counts by place; `stores` are the attributes of each configured store."""
    hosted = {f"{name}={value}" for attributes in stores for name, value in attributes.items()}
    places: dict[str, PlaceDemand] = {}
    for key, count in counts.items():
        location = key.location.removesuffix("+fast")
        place = places.setdefault(location, PlaceDemand(location, location in hosted))
        place.counts[key.reason] = place.counts.get(key.reason, _NOTHING) + count
    return sorted(places.values(), key=lambda place: (-place.clones, place.location))


def of_repository(counts: Counts, repository: str) -> dict[DemandKey, DemandCount]:
    """Return the counts of one repository."""
    return {key: count for key, count in counts.items() if key.repository == repository}


def print_demand(places: list[PlaceDemand]) -> None:
    """Print a table for people."""
    if not places:
        click.echo("nobody has cloned anything within the last day")
        return
    rows = [
        (
            place.location or _ANYWHERE,
            "yes" if place.has_store else "no" if place.location else "",
            place.clones,
            place.by_bundle.clones,
            f"{place.by_bundle.size_bytes:,}",
            place.from_origin.clones,
            f"{place.from_origin.size_bytes:,}",
            _reasons(place),
        )
        for place in places
    ]
    headings = ("PLACE", "STORE", "CLONES", "BY BUNDLE", "BYTES", "FROM HERE", "BYTES", "WHY FROM HERE")
    print_table(headings, rows)


def _reasons(place: PlaceDemand) -> str:
    others = [
        f"{reason.value} {count.clones}"
        for reason, count in sorted(place.counts.items())
        if reason is not CloneReason.BUNDLE
    ]
    return ", ".join(others)


def _count_json(count: DemandCount) -> dict[str, int]:
    return {"clones": count.clones, "bytes": count.size_bytes}
