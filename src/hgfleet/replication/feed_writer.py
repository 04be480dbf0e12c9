"""Writes the feed: does what model.feeding decides, in a thread beside the active coordinator's.

It begins with the marks that the state topic keeps, reads the feed on from there, and opens a turn of its
own; nothing is remembered anywhere else. Marks are written again a while after what they repeat.

Promises: killed at any point, or beside another writer, the next life goes on from what the log says. Trouble
with the feed never delays a decision of the coordinator: it waits here, is logged and counted.
Does not: know what is visible (the coordinator tells it), or deliver anything to anybody (the notifier does).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

from hgfleet.adapters.agent_answers import FeedEvent, FeedItem, FeedItems, FeedRestart
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.errors import (
    FleetError,
    InDoubtError,
    InvariantError,
    PoisonError,
    RejectedError,
    TransientError,
)
from hgfleet.model.catalogue import Catalogue
from hgfleet.model.feed import FEED_START, FeedPosition, FeedVerdict
from hgfleet.model.feed_marks import FeedMark, FeedPlace
from hgfleet.model.feed_records import FeedEntry, FeedRecord, decode_feed_record, encode_feed_record
from hgfleet.model.feeding import Act, Feeder, Logged, Step, Wanted
from hgfleet.model.ids import CATALOGUE, HostName, Partition, RepoId, RepoPath, Seq
from hgfleet.model.message import decode_message
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults
from hgfleet.runtime.retry import Backoff

WAIT_SECONDS = 0.2  # at most this long between two looks at the clock, and at a stop
READ_BYTES = 256 * 1024  # of one repository's messages at a time
BATCH_BYTES = 1024 * 1024  # of what was read for one append
MARK_SECONDS = 2.0  # between two writings of marks
MARKS_AT_ONCE = 500
STALL_SECONDS = 0.25  # until what could not be read is tried again
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What a feed writer needs to know."""

    host: HostName
    agent_socket: Path
    faults: Faults = NO_FAULTS


@dataclass(frozen=True, slots=True)
class FeedStart:
    """Where the state topic says that the feed is."""

    position: FeedPosition = FEED_START
    seqs: Mapping[RepoId, Seq] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FeedLag:
    """How many visible messages have not entered, and since when the oldest waits; Unix time, 0: none."""

    behind: int = 0
    since: float = 0.0


class News:
    """What the coordinator's thread tells the writer's: up to where repositories have become visible.

    And in `lag` the other way round how far the writer is, which stays true while it hangs in an append.
    """

    def __init__(self) -> None:
        self.lag = FeedLag()
        self._condition = threading.Condition()
        self._all: dict[RepoId, Seq] = {}
        self._new: dict[RepoId, Seq] = {}

    def put(self, seqs: Mapping[RepoId, Seq]) -> None:
        """Tell it; seqs only rise."""
        with self._condition:
            self._all |= seqs
            self._new |= seqs
            self._condition.notify()

    def take(self, timeout_seconds: float) -> dict[RepoId, Seq]:
        """Return what is new; waits for something to come."""
        with self._condition:
            self._condition.wait_for(lambda: self._new, timeout_seconds)
            seqs, self._new = self._new, {}
            return seqs

    def repeat(self) -> None:
        """Make everything new once more."""
        with self._condition:
            self._new = dict(self._all)


class FeedWriter:
    """Lives of a writer, one after another, in a thread of its own until told to stop."""

    def __init__(self, options: FeedOptions, find_start: Callable[[], FeedStart]) -> None:
        """Note how to find out where the feed is; `find_start` is called in the writer's thread."""
        self.news = News()
        self._options = options
        self._find_start = find_start
        self._feeder: Feeder | None = None
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="feed-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step in hand; blocks."""
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """Raise InvariantError when the thread has died: then its process ends, too."""
        if self._failure is not None:
            raise InvariantError("feed.dead", "the feed's writer died", reason=repr(self._failure))

    def _work(self) -> None:
        """Let the thread not die unnoticed."""
        try:
            self._run()
        except BaseException as error:
            self._failure = error
            raise

    def _run(self) -> None:
        """Write until stopped; after what does not heal by itself, begin again from what the log keeps."""
        backoff, long_backoff = Backoff(0.05, 1.0), Backoff(1.0, 30.0)
        while not self._stop.is_set():
            try:
                self._live(backoff)
            except (TransientError, InDoubtError) as error:
                _log.warning("feed.life-ended", code=error.code, reason=str(error))
                self._stop.wait(backoff.next_pause())
            except FleetError as error:
                _log.error("feed.stopped", code=error.code, reason=str(error), hint=error.hint)
                self._note_stopped()
                self._stop.wait(long_backoff.next_pause())

    def _note_stopped(self) -> None:
        """Begin anew next time; until then the feed counts as behind, whatever was read before."""
        behind = self._feeder.behind() if self._feeder is not None else 0
        self.news.lag = FeedLag(max(behind, 1), self.news.lag.since or clock.now())
        self._feeder = None

    def _live(self, backoff: Backoff) -> None:
        options = self._options
        with LogAgentClient(options.agent_socket) as client:
            if self._feeder is None:
                self._feeder = _make_feeder(options.host, self._find_start(), client)
                self.news.repeat()
            feeder = self._feeder
            feeder.begin(uuid.uuid4().hex)
            with client.feed_follow(feeder.reader.position.offset) as events:
                life = _Life(feeder, client, events, self.news, options.faults)
                while not (self._stop.is_set() or life.is_over):
                    life.turn()
                    if life.has_opened:
                        backoff.reset()
                life.mark()
                if life.is_over:
                    self._stop.wait(backoff.next_pause())


def _make_feeder(host: HostName, start: FeedStart, client: LogAgentClient) -> Feeder:
    """Fold the bindings as of the catalogue's last entry in the feed."""
    paths = _paths_at(client, start.seqs.get(CATALOGUE, Seq(0)))
    return Feeder(host, position=start.position, seqs=start.seqs, paths=paths)


def _paths_at(client: LogAgentClient, seq: Seq) -> dict[RepoId, RepoPath]:
    """Return the bindings after a seq of the catalogue."""
    catalogue = Catalogue()
    while catalogue.seq < seq:
        batch = client.catalogue(catalogue.seq)
        wanted = [message for message in batch.messages if message.seq <= seq]
        if not wanted:
            break  # a log that lost its catalogue: what is bound there enters the feed again
        for message in wanted:
            catalogue.take(decode_message(message.wire), message.position.offset)
    return {binding.repository: binding.path for binding in catalogue.bindings()}


class _Life:
    """One life: from reading the feed on until the agent is lost or another writer opens a turn."""

    def __init__(
        self,
        feeder: Feeder,
        client: LogAgentClient,
        events: EventStream[FeedEvent],
        news: News,
        faults: Faults,
    ) -> None:
        self.is_over = False
        self.has_opened = False
        self._feeder = feeder
        self._client = client
        self._events = events
        self._news = news
        self._faults = faults
        self._partition_by_repository = {bound.repository: bound.partition for bound in client.paths()[0]}
        self._mark_at = 0.0
        self._stalled_at = 0.0
        self._marked: FeedPlace | None = None
        self._unreadable: set[RepoId] = set()  # and said so
        self._is_awaiting = True  # something that the feed's stream will bring

    def turn(self) -> None:
        """Take what came, then do what follows from it."""
        self._take(self._events.next_event(WAIT_SECONDS if self._is_awaiting else 0))
        while (event := self._events.next_event(0)) is not None:
            self._take(event)
        seqs = self._news.take(0 if self._is_awaiting else WAIT_SECONDS)
        self._feeder.note_visible(seqs, clock.now())
        self._is_awaiting = self._do(self._feeder.next_step(clock.now()))
        self._retry_stalled()
        if clock.monotonic() >= self._mark_at:
            self._note_lag()
            self.mark()

    def mark(self) -> None:
        """Write marks, if there is anything new to say."""
        self._mark_at = clock.monotonic() + MARK_SECONDS
        feeder, position = self._feeder, self._feeder.reader.position
        if not feeder.is_open or self.is_over:
            return  # a turn's keys are its own writer's
        place = FeedPlace(position.turn, position.offset, max(position.number, 0))
        if place == self._marked:
            return
        self._publish_marks(position.turn)
        self._client.state_publish({place.key: dict(place.value)})
        self._marked = place

    def _publish_marks(self, turn: int) -> None:
        dirty = self._feeder.take_dirty()
        try:
            pending = iter(_marks(turn, dirty))
            while batch := list(islice(pending, MARKS_AT_ONCE)):
                self._client.state_publish({mark.key: dict(mark.value) for mark in batch})
        except FleetError:
            self._feeder.dirty |= dirty.keys()  # writing a mark again is harmless
            raise

    # ---- what came

    def _take(self, event: FeedEvent | None) -> None:
        match event:
            case None:
                return
            case FeedItems():
                for item in event.items:
                    self._take_item(item)
            case FeedRestart():
                _log.warning(
                    "feed.restarted", offset=event.offset, expected=self._feeder.reader.position.offset
                )
                self.is_over = self._feeder.is_open
                self._feeder.reader.restart(event.offset)
            case _:
                self._feeder.note_end(self._feeder.reader.position.offset)

    def _take_item(self, item: FeedItem) -> None:
        record = _decode(item)
        verdict = self._feeder.take(record, item.next_offset, clock.now())
        if verdict is FeedVerdict.GAP and isinstance(record, FeedEntry):
            _log.error("feed.gap", repository=record.repository, seq=record.seq, after=record.after)

    # ---- what follows

    def _do(self, step: Step) -> bool:
        """Do one step; return whether the feed's stream is to bring something next."""
        match step.act:
            case Act.OPEN if step.opening is not None:
                self._append([step.opening])
                return True
            case Act.EMIT:
                return self._emit(step.wanted)
            case Act.OVER:
                _log.warning("feed.replaced", turn=self._feeder.reader.position.turn)
                self.is_over = True
        self.has_opened |= self._feeder.is_open
        return self._feeder.is_awaiting

    def _emit(self, wanted: tuple[Wanted, ...]) -> bool:
        entries: list[FeedEntry] = []
        left = BATCH_BYTES
        for one in wanted:
            found, size_bytes = self._read(one)
            entries += found
            left -= size_bytes
            if left <= 0:
                break
        if not entries:
            return False
        self._append(self._feeder.send(entries, clock.now()))
        _log.debug("feed.entered", entries=len(entries), repositories=len(wanted))
        return True

    def _read(self, wanted: Wanted) -> tuple[list[FeedEntry], int]:
        """Return the entries of what one repository wants, and how much was read for them."""
        partition = self._partition(wanted.repository)
        try:
            if wanted.repository == CATALOGUE:
                messages = self._client.catalogue(wanted.after, READ_BYTES).messages
            else:
                messages = self._client.read(wanted.repository, wanted.after, READ_BYTES).messages
        except RejectedError as error:
            if error.code != "log.overrun" or wanted.repository == CATALOGUE:
                self._note_unreadable(wanted, error)
                return self._feeder.compose(wanted, (), partition), 0
            _log.error("feed.overrun", repository=wanted.repository, after=wanted.after, upto=wanted.upto)
            return [self._feeder.overrun(wanted, partition, clock.now())], 0
        logged = [Logged(decode_message(message.wire), message.position) for message in messages]
        size_bytes = sum(len(message.wire) for message in messages)
        return self._feeder.compose(wanted, logged, partition), size_bytes

    def _note_unreadable(self, wanted: Wanted, error: FleetError) -> None:
        """Say it once; it is tried again all the same, and no other repository waits."""
        if wanted.repository not in self._unreadable:
            self._unreadable.add(wanted.repository)
            _log.error("feed.unreadable-message", repository=wanted.repository, reason=str(error))

    def _partition(self, repository: RepoId) -> Partition:
        """Return where a repository's messages are; one that was bound after this life began is asked for."""
        if repository == CATALOGUE:
            return Partition(0)
        if repository not in self._partition_by_repository:
            last = self._client.last(repository)
            if last.partition is None:
                return Partition(0)
            self._partition_by_repository[repository] = last.partition
        return self._partition_by_repository[repository]

    def _append(self, records: list[Any]) -> None:
        """Append records; TransientError is met by another try, InDoubtError ends the life."""
        self._note_lag()
        self._faults.reach("feed-before-append")
        wires = [encode_feed_record(record) for record in records]
        try:
            self._client.feed_append(wires)
        except TransientError:
            self._feeder.withdraw()
            raise
        self._faults.reach("feed-after-append")

    def _note_lag(self) -> None:
        self._news.lag = FeedLag(self._feeder.behind(), self._feeder.behind_since() or 0.0)

    def _retry_stalled(self) -> None:
        if clock.monotonic() - self._stalled_at >= STALL_SECONDS:
            self._stalled_at = clock.monotonic()
            self._feeder.retry_stalled()


def _marks(turn: int, dirty: Mapping[RepoId, Seq | None]) -> list[FeedMark]:
    return [
        FeedMark(turn, repository, seq or Seq(0), is_over=seq is None) for repository, seq in dirty.items()
    ]


def _decode(item: FeedItem) -> FeedRecord | None:
    """Decode a record; None: nobody can. One of a newer release raises: it may count."""
    try:
        return decode_feed_record(item.wire)
    except PoisonError as error:
        if error.code == "feed.too-new":
            raise
        _log.error("feed.unreadable-record", offset=item.offset, reason=str(error))
        return None
