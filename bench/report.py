"""Shows rows to people (table, Markdown) and to programs (JSON).

Promises: every row is shown, met or not; nothing shown names the machine or a path.
Does not: decide what is good enough to publish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.series import Goal, Row, Series

_HEADINGS = ("what", "hgfleet median (p10–p90)", "beside it", "ratio", "goal", "met")
_GAP = "  "


def format_table(rows: Sequence[Row]) -> str:
    """Return rows as columns for a terminal, notes below."""
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    table = [_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    table.insert(1, _GAP.join("-" * width for width in widths))
    return "\n".join([*(line.rstrip() for line in table), *_notes(rows, "* ")])


def format_markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table, notes below."""
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *(_cells(row) for row in rows)]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*table, "", *_notes(rows, "- ")])


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as plain values, each measured value included."""
    return [
        {
            "benchmark": row.benchmark,
            "what": row.what,
            "ours": _series_to_json(row.ours),
            "plain": _series_to_json(row.plain) if row.plain else None,
            "plain_what": row.plain_what,
            "ratio": row.ratio,
            "ratio_of": row.ratio_of,
            "goal": _goal_to_json(row.goal) if row.goal else None,
            "is_met": row.is_met,
            "note": row.note,
        }
        for row in rows
    ]


def from_json(values: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows that to_json() wrote."""
    return [
        Row(
            value["benchmark"],
            value["what"],
            _series_from_json(value["ours"]),
            _series_from_json(value["plain"]) if value["plain"] else None,
            value["plain_what"],
            Goal(**value["goal"]) if value["goal"] else None,
            value["ratio_of"],
            value["note"],
        )
        for value in values
    ]


def _cells(row: Row) -> tuple[str, ...]:
    beside = f"{_spread(row.plain)} {row.plain_what}" if row.plain else "–"
    ratio = "–" if row.ratio is None else f"{_short(row.ratio)} ×"
    met = {True: "yes", False: "NO", None: "–"}[row.is_met]
    return (row.what, _ours(row), beside, ratio, str(row.goal or "–"), met)


def _ours(row: Row) -> str:
    """Return the median and the spread, or the percentile that the goal speaks of."""
    if row.goal is None or row.goal.percent == 50:
        return _spread(row.ours)
    return f"{_short(row.ours.percentile(row.goal.percent))} {row.ours.unit} (p{row.goal.percent:g})"


def _spread(series: Series) -> str:
    low, high = _short(series.percentile(10)), _short(series.percentile(90))
    middle = _short(series.median)
    return f"{middle} {series.unit}" if len(series.values) == 1 else f"{middle} {series.unit} ({low}–{high})"


def _short(value: float) -> str:
    """Return a number with three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    if 0 < value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _notes(rows: Sequence[Row], bullet: str) -> list[str]:
    return [f"{bullet}{row.what}: {row.note}" for row in rows if row.note]


def _series_to_json(series: Series) -> dict[str, Any]:
    return {"unit": series.unit, "values": list(series.values)}


def _series_from_json(value: dict[str, Any]) -> Series:
    return Series(value["unit"], tuple(value["values"]))


def _goal_to_json(goal: Goal) -> dict[str, Any]:
    return {
        "limit": goal.limit,
        "unit": goal.unit,
        "at_most": goal.at_most,
        "percent": goal.percent,
    }
