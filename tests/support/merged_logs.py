"""The logs of all hosts as one text in the order of time: what a person reads after a failed test."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

LINES = 400
_LEADING = ("at", "process", "event")


def merge(paths: Iterable[Path], lines: int = LINES) -> str:
    """Return the last lines; each begins with its time and its file's host."""
    merged = heapq.merge(*(_read(path) for path in sorted(paths)))
    return "\n".join(text for _, text in list(merged)[-lines:])


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield time and text; a line that is no record has the time of the one before."""
    at = ""
    for line in path.read_text(errors="replace").splitlines():
        record = _parse(line)
        at = str(record.get("at", at))
        yield at, f"{at[11:23]:13}{path.parent.name:9}{_format(record) if record else line}"


def _parse(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _format(record: dict[str, object]) -> str:
    rest = " ".join(f"{name}={value}" for name, value in record.items() if name not in _LEADING)
    return f"{record.get('process', ''):20} {record.get('event', '')} {rest}"
