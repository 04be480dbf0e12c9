"""`python -m bench`: measures hgfleet with plain Mercurial beside it and prints a table.

Everything is a ratio of one run, on whatever machine, medians of many, the two sides in turns. Nothing here
passes or fails: a goal that is missed is said in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.bundling import measure_bundles
from bench.memory import measure_growth
from bench.origin import measure_origin
from bench.pushing import measure_pushes
from bench.reading import measure_reading
from bench.replicating import measure_applying, measure_catching_up, measure_exposure, measure_kafka
from bench.report import format_markdown, format_table, from_json, to_json
from bench.series import Row
from bench.setting import Setting

MEASUREMENTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "push": measure_pushes,
    "expose": measure_exposure,
    "apply": measure_applying,
    "catch-up": measure_catching_up,
    "kafka": measure_kafka,
    "read": measure_reading,
    "memory": measure_growth,
    "origin": measure_origin,
    "bundles": measure_bundles,
}
_ONLY_BY_NAME = {"memory"}  # takes longer than all others
_RUNS = 21
_QUICK_RUNS = 3


def main() -> None:
    """Measure what was asked for, or show an earlier result."""
    options = _parse_options()
    if options.show:
        print(format_markdown(from_json(json.loads(options.show.read_text()))))
        return
    rows: list[Row] = []
    try:
        rows.extend(_measure(options))
    finally:  # what was measured is not lost with what could not be
        _show(rows, options)


def _show(rows: list[Row], options: argparse.Namespace) -> None:
    print(format_table(rows))
    if options.markdown:
        options.markdown.write_text(format_markdown(rows) + "\n")
    if options.json:
        options.json.write_text(json.dumps(to_json(rows), indent=1) + "\n")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}; default: all but memory"
    )
    parser.add_argument("--runs", type=int, default=_RUNS, help="how often each thing is measured")
    parser.add_argument("--quick", action="store_true", help="only enough to see that it works")
    parser.add_argument("--json", type=Path, help="write every measured value there")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--show", type=Path, metavar="JSON", help="print an earlier result as Markdown")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return options


def _measure(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="hgfleet-bench-") as directory:
        for name in options.names or [name for name in MEASUREMENTS if name not in _ONLY_BY_NAME]:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            setting = Setting(
                runs=_QUICK_RUNS if options.quick else options.runs,
                directory=Path(directory) / name,
                is_quick=options.quick,
            )
            for row in MEASUREMENTS[name](setting):
                print(format_table([row]), file=sys.stderr, flush=True)
                yield row


if __name__ == "__main__":
    main()
