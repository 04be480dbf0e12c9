"""Writes the date of accounts' last use, in the background.

Promises: note() returns at once and never raises; an account's date is written at most once a day, and not at
all when the directory has today's already; a failure is counted, logged, and followed by a pause.
Does not: insist: a date that could not be written is written after a later use.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from hgfleet.errors import FleetError
from hgfleet.model.ids import AccountName
from hgfleet.runtime import clock

WAITING = 1000  # more at once are dropped: they will be used again
PAUSE_SECONDS = 60.0
_log = logging.getLogger("hgfleet.directory")


class LastUse:
    """A queue, and the thread that empties it once there is something in it."""

    def __init__(self, write: Callable[[AccountName, str], None]) -> None:
        """`write` stores a date as LDAP's generalized time; it may raise FleetError."""
        self._write = write
        self._queue: queue.Queue[AccountName | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._day = ""
        self._done: set[AccountName] = set()  # written, on the way, or found written, today
        self._thread: threading.Thread | None = None
        self._paused_until = 0.0
        self.failures = 0

    def learn(self, name: AccountName, date: str) -> None:
        """Take note of the date that the directory has."""
        with self._lock:
            self._turn_day()
            if date.startswith(self._day):
                self._done.add(name)

    def note(self, name: AccountName) -> None:
        """Have today's date written, some time soon."""
        with self._lock:
            self._turn_day()
            if name in self._done or clock.monotonic() < self._paused_until:
                return
            try:
                self._queue.put_nowait(name)
            except queue.Full:
                return
            self._done.add(name)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="last-use", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Write what waits and end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (name := self._queue.get()) is not None:
            try:
                self._write(name, f"{datetime.fromtimestamp(clock.now(), UTC):%Y%m%d%H%M%SZ}")
            except FleetError as error:
                self._note_failure(name, error)

    def _note_failure(self, name: AccountName, error: FleetError) -> None:
        with self._lock:
            self.failures += 1
            self._done.discard(name)
            self._paused_until = clock.monotonic() + PAUSE_SECONDS
        _log.info("directory.touch-failed", extra={"account": name, "code": error.code, "reason": str(error)})

    def _turn_day(self) -> None:
        """Forget on a new day whose date was written."""
        day = f"{datetime.fromtimestamp(clock.now(), UTC):%Y%m%d}"
        if day != self._day:
            self._day, self._done = day, set()
