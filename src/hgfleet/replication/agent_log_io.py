"""The log agent's only access to the log: one thread that appends and reads, and one that waits for news.

Whatever waits to be appended goes into one append() together. After each, the partitions that were appended
to are read on, so that every record, our own included, reaches the agent the same way: read from the log.

Promises: each record of each partition is delivered once, in offset order, in the event loop's thread; a
failed append is reported with the port's own error and not sent again; a loop that is behind is waited for.
Does not: decode records, or decide which count.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hgfleet.errors import FleetError, InDoubtError, TransientError
from hgfleet.model.ids import Offset, Partition
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord, Record, ReplicationLog
from hgfleet.runtime import clock

Place = tuple[Topic, Partition]
_Batch = tuple[Place, Sequence[Record]]
_Outcome = list[Offset] | FleetError
Deliver = Callable[[Place, Sequence[Record]], None]

READ_BYTES = 256 * 1024  # per partition and turn; what the loop folds at once
MAX_UNDELIVERED = 4  # turns that the loop has not taken yet
WAIT_SECONDS = 0.1  # how long a stop may go unnoticed
PAUSE_SECONDS = 0.2  # after a failure

logger = logging.getLogger("hgfleet.replication.agent_log_io")


@dataclass(slots=True)
class _Request:
    records: Sequence[NewRecord]
    answer: asyncio.Future[list[Offset]]


class LogIo:
    """Two threads around one log; everything public is called in the event loop's thread."""

    def __init__(self, log: ReplicationLog, positions: Mapping[Place, Offset], deliver: Deliver) -> None:
        """Note where to begin; `deliver` and `on_failure` are called in the loop's thread."""
        self._log = log
        self._positions = dict(positions)
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()  # set when the log is gone for good
        self.last_error = ""
        self._condition = threading.Condition()
        self._requests: list[_Request] = []
        self._has_news = True
        self._is_working = False
        self._is_stopping = False
        self._turns = 0  # of the thread that reads
        self._undelivered = threading.Semaphore(MAX_UNDELIVERED)
        self._threads = [
            threading.Thread(target=self._run, args=(self._work,), name="log-io", daemon=True),
            threading.Thread(target=self._run, args=(self._watch,), name="log-watch", daemon=True),
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def append(self, records: Sequence[NewRecord]) -> asyncio.Future[list[Offset]]:
        """Append and deliver what was appended; then the future has the offsets, or the port's error."""
        request = _Request(records, self._loop.create_future())
        with self._condition:
            self._requests.append(request)
            self._condition.notify_all()
        return request.answer

    def stop(self) -> None:
        """End both threads after what is under way; blocks, so not for the loop's own thread."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        """Let no thread die unnoticed."""
        try:
            work()
        except BaseException as error:
            self._call(self.fail, error)
            raise

    # ---- the thread that appends and reads

    def _work(self) -> None:
        while True:
            requests, has_news = self._next_work()
            if self._is_stopping and not requests:
                return
            outcome = self._append([record for request in requests for record in request.records])
            places = set(self._positions) if has_news else self._places_of(requests)
            batches, has_more = self._read_on(places)
            self._hand_over(batches, requests, outcome)
            self._note_read(has_news=has_news, has_more=has_more)

    def _next_work(self) -> tuple[list[_Request], bool]:
        with self._condition:
            self._condition.wait_for(lambda: self._requests or self._has_news or self._is_stopping)
            requests, self._requests = self._requests, []
            self._is_working = True
            return requests, self._has_news

    def _append(self, records: Sequence[NewRecord]) -> _Outcome:
        if not records:
            return []
        try:
            return self._log.append(records)
        except (TransientError, InDoubtError) as error:
            self.last_error = str(error)
            self._judge(error)
            return error

    @staticmethod
    def _places_of(requests: Sequence[_Request]) -> set[Place]:
        return {(record.topic, record.partition) for request in requests for record in request.records}

    def _read_on(self, places: set[Place]) -> tuple[list[_Batch], bool]:
        """Read each place on; return what came, and whether there may be more."""
        batches: list[_Batch] = []
        has_more = False
        for place in sorted(places):
            try:
                records = self._log.read(*place, self._positions[place], READ_BYTES)
            except FleetError as error:
                self._note_failure(error)
                return batches, True
            if records:
                self._positions[place] = records[-1].next_offset
                batches.append((place, records))
                has_more |= sum(len(record.value) for record in records) >= READ_BYTES
        return batches, has_more

    def _hand_over(self, batches: Sequence[_Batch], requests: Sequence[_Request], outcome: _Outcome) -> None:
        """Give the loop what one turn brought: records first, then the answers that depend on them."""
        if not batches and not requests:
            return
        while not self._undelivered.acquire(timeout=PAUSE_SECONDS):
            if self._is_stopping:
                return
        self._call(self._take_in_loop, batches, requests, outcome)

    def _take_in_loop(
        self, batches: Sequence[_Batch], requests: Sequence[_Request], outcome: _Outcome
    ) -> None:
        self._undelivered.release()
        try:
            for place, records in batches:
                self._deliver(place, records)
        except BaseException as error:
            self.fail(error)
            raise
        start = 0
        for request in requests:
            end = start + len(request.records)
            _answer(request.answer, outcome if isinstance(outcome, FleetError) else outcome[start:end])
            start = end

    def _note_read(self, *, has_news: bool, has_more: bool) -> None:
        with self._condition:
            if has_news:
                self._has_news = False
            self._has_news |= has_more
            self._is_working = False
            self._turns += 1
            self._condition.notify_all()

    # ---- the thread that waits for what others append

    def _watch(self) -> None:
        while not self._is_stopping:
            turns = self._turns
            try:
                has_news = self._log.wait(dict(self._positions), WAIT_SECONDS)
            except FleetError as error:
                self._note_failure(error)
                continue
            if has_news:
                self._ask_to_read(turns)

    def _ask_to_read(self, turns: int) -> None:
        """Ask the other thread to read everything on and wait until it has.

        While that one is at work, or has been since `turns`, the news is most likely our own append: let it
        finish and look again.
        """
        with self._condition:
            if self._turns != turns:
                return
            if self._is_working:
                self._condition.wait_for(lambda: not self._is_working or self._is_stopping)
                return
            self._has_news = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._has_news or self._is_stopping)

    def _note_failure(self, error: FleetError) -> None:
        if self.last_error != str(error):
            logger.warning("log.unreadable", extra={"reason": str(error)})
        self.last_error = str(error)
        self._judge(error)
        clock.sleep(PAUSE_SECONDS)

    def _judge(self, error: FleetError) -> None:
        """Give up on a log that is not the one that was opened: only a new start can tell what is there."""
        if error.code in {"log.replaced", "log.damaged", "log.overrun"}:
            self._call(self.fail, error)

    def fail(self, error: BaseException) -> None:
        """End the agent: what it would go on with is not sound."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)


def _answer(future: asyncio.Future[list[Offset]], outcome: _Outcome) -> None:
    if future.cancelled():
        return
    if isinstance(outcome, FleetError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
