"""Shows how far a long command is: a moving bar on a terminal, plain lines elsewhere.

Promises: everything goes to standard error, so that standard output stays the answer.
Does not: slow down what it shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hgfleet.cli.import_process import Progress

_LINE_STEP = 10  # per cent between two plain lines


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows progress as it comes."""
    if not sys.stderr.isatty():
        yield _PlainLines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task_by_topic = {}

        def show(progress: Progress) -> None:
            if progress.topic not in task_by_topic:
                task_by_topic[progress.topic] = bars.add_task(progress.topic)
            bars.update(task_by_topic[progress.topic], completed=progress.position, total=progress.total)

        yield show


class _PlainLines:
    """A line when something new begins, and every few per cent."""

    def __init__(self) -> None:
        self._last: tuple[str, int] = ("", 0)

    def show(self, progress: Progress) -> None:
        percent = 100 * progress.position // progress.total if progress.total else 0
        step = (progress.topic, percent // _LINE_STEP)
        if step != self._last:
            self._last = step
            amount = f"{percent}%" if progress.total else f"{progress.position}"
            print(f"{progress.topic}: {amount}", file=sys.stderr, flush=True)
