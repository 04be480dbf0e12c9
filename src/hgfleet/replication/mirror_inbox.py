"""What is said to the applier's deciding thread, in the order in which it was said.

Every time the thread is woken costs about as much as what it then does, and half of what it hears about a
push can wait until there is something to do: the echo of its own reports, and the log's word that it has
taken them.

Promises: nothing is lost or overtaken; what may wait is heard with whatever comes next, at the
latest when the thread looks at its clock.
Does not: know what may wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Filled by any thread, emptied by one."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._wakes: SimpleQueue[None] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, *, may_wait: bool = False) -> None:
        """Add an item, and wake the thread unless it may wait."""
        self._items.append(item)
        if not may_wait:
            self.wake()

    def wake(self) -> None:
        """Have the thread take what there is."""
        self._wakes.put(None)

    def take(self, timeout_seconds: float) -> Iterator[T]:
        """Wait until woken, or for so long; then yield everything that was put."""
        with suppress(Empty):
            self._wakes.get(timeout=timeout_seconds)
            while True:
                self._wakes.get_nowait()
        while self._items:
            yield self._items.popleft()
