"""How `hgfleet bundles` shows repositories and their bundles: to people in tables, to programs as values.

Promises: pure, but for printing; every repository has the reason for what it has.
Does not: ask anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hgfleet.adapters.agent_answers import BoundPath
from hgfleet.cli.output import print_table
from hgfleet.model.bundle_policy import Decision
from hgfleet.model.bundle_state import InForce

_MEBIBYTE = 1024**2


@dataclass(frozen=True, slots=True)
class BundleRow:
    """One repository."""

    bound: BoundPath
    in_force: InForce
    decision: Decision
    clones_a_day: float
    now: float


def describe_repository(row: BundleRow) -> dict[str, Any]:
    """Return what `bundles list --json` prints of a repository."""
    state = row.in_force.state
    made, previous = state.current.made, state.previous
    return {
        "path": row.bound.path,
        "repository": row.bound.repository,
        "is_disabled": state.is_disabled,
        "seq": row.in_force.seq,
        "made": None if made is None else made.to_json(),
        "clones_a_day": row.clones_a_day,
        "step": row.decision.step.value,
        "reason": row.decision.reason,
        "entries": [entry.to_json() for entry in state.current.entries],
        "previous_entries": [entry.to_json() for entry in previous.entries] if previous else [],
        "retired": len(state.retired),
    }


def print_repositories(rows: list[BundleRow], *, is_detailed: bool) -> None:
    """Print a line for each repository; in detail one for each bundle, too."""
    headings = ("path", "bundles", "types", "MiB", "age", "clones a day", "next", "why")
    print_table(headings, [_cells(row) for row in rows])
    if not is_detailed:
        return
    entries = [entry for row in rows for entry in row.in_force.state.current.entries]
    if entries:
        print_table(
            ("store", "type", "bytes", "url"),
            [(entry.store or "(added)", entry.kind.value, entry.size_bytes, entry.url) for entry in entries],
        )


def _cells(row: BundleRow) -> tuple[object, ...]:
    state = row.in_force.state
    entries, made = state.current.entries, state.current.made
    types = ",".join(dict.fromkeys(entry.kind.value for entry in entries)) or "-"
    size = sum(entry.size_bytes for entry in entries) / _MEBIBYTE
    return (
        row.bound.path,
        "disabled" if state.is_disabled else len(entries),
        types,
        f"{size:.1f}" if entries else "-",
        _age(row.now - made.at) if made else "-",
        f"{row.clones_a_day:g}",
        row.decision.step.value,
        row.decision.reason,
    )


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def print_checked(rows: list[dict[str, Any]]) -> None:
    """Print a line for each bundle that was asked for."""
    cells = [
        (row["path"], row["condition"], "dropped" if row["is_dropped"] else "", row["url"], row["reason"])
        for row in rows
    ]
    print_table(("path", "condition", "", "url", "why"), cells)
