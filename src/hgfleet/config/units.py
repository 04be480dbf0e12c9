"""Durations, sizes and paths as people write them: "30s", "64MiB", "log/log.sqlite".

Promises: parse(format(value)) == value for every value that can be written; what cannot be read raises
ValueError with the accepted form in its text.
Does not: know which setting it reads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo

_SECONDS_BY_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES_BY_UNIT = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)")


def parse_duration(text: Any) -> float:
    """Return seconds from "250ms", "30s", "5m", "12h" or "7d"."""
    number, unit = _split(text, _SECONDS_BY_UNIT, 'a duration such as "250ms", "30s" or "5m"')
    return float(number) * _SECONDS_BY_UNIT[unit]


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that keeps the number whole."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def parse_size(text: Any) -> int:
    """Return bytes from "256KiB", "64MiB" or "1GiB"."""
    number, unit = _split(text, _BYTES_BY_UNIT, 'a size such as "256KiB" or "64MiB"')
    return round(float(number) * _BYTES_BY_UNIT[unit])


def format_size(size_bytes: int) -> str:
    """Write bytes in the largest unit that keeps the number whole."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES_BY_UNIT[unit] == 0:
            return f"{size_bytes // _BYTES_BY_UNIT[unit]}{unit}"
    return f"{size_bytes}B"


def _split(text: Any, units: dict[str, Any], form: str) -> tuple[str, str]:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected {form}")
    return match[1], match[2]


def _parse_path(text: Any, info: ValidationInfo) -> Path | None:
    """Read a path, relative to the directory in the context; "" is no path."""
    if not isinstance(text, str) or "\0" in text:
        raise ValueError("expected a path as a string")
    base: Path = (info.context or {}).get("base", Path())
    return base / text if text else None


def _format_path(path: Path | None) -> str:
    return "" if path is None else str(path)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size)]
FilePath = Annotated[Path, BeforeValidator(_parse_path), PlainSerializer(_format_path)]
OptionalFilePath = Annotated[Path | None, BeforeValidator(_parse_path), PlainSerializer(_format_path)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), PlainSerializer(list)]
