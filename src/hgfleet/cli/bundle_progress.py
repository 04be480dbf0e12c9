"""Shows how far the making of bundles is: per type what was written, and how fast.

Promises: everything goes to standard error; where that is no terminal, nothing is shown.
Does not: know how large a bundle will be: nobody does before it is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hgfleet.bundles.making import Show, nothing_shown
from hgfleet.model.bundle_manifest import BundleType

if TYPE_CHECKING:
    from rich.progress import TaskID


@contextmanager
def shown_sizes() -> Iterator[Show]:
    """Yield a function that shows sizes as they come."""
    if not sys.stderr.isatty():
        yield nothing_shown
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        DownloadColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task_by_kind: dict[BundleType, TaskID] = {}

        def show(kind: BundleType, size_bytes: int) -> None:
            if kind not in task_by_kind:
                task_by_kind[kind] = bars.add_task(kind.value, total=None)
            bars.update(task_by_kind[kind], completed=size_bytes)

        yield show
