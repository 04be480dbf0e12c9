"""The feed as its readers follow it: what counts, each entry with the position behind it.

A reader keeps the position of the last entry that it is done with, and begins there again.

Promises: from a position on, every entry that counts comes once and in order, `is_gap` where others may be
missing before it. A stream whose agent went away raises InDoubtError `local.cut-off`: follow it again from
the position.
An entry that only a newer release can read raises PoisonError `feed.too-new`, and is not passed over.
Does not: keep positions, or decide what counts (model.feed).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from hgfleet.adapters.agent_answers import FeedEnd, FeedEvent, FeedItem, FeedItems, FeedRestart
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import PoisonError
from hgfleet.model.feed import FEED_START, FeedPosition, FeedReader, FeedVerdict
from hgfleet.model.feed_records import FeedEntry, FeedRecord, decode_feed_record
from hgfleet.model.ids import Offset


@dataclass(frozen=True, slots=True)
class CountedEntry:
    """An entry that counts."""

    entry: FeedEntry
    offset: Offset  # its own
    entered_at: float  # Unix seconds at which the log took it
    position: FeedPosition  # behind it
    is_gap: bool  # entries before it are missing, or may be


class FeedStream:
    """One connection; `position` None follows what comes from now on."""

    def __init__(self, client: LogAgentClient, position: FeedPosition | None = None) -> None:
        self._reader = FeedReader(position or FEED_START)
        self._is_placed = position is not None
        self._events = client.feed_follow(position.offset if position else None)

    @property
    def position(self) -> FeedPosition:
        """Where the stream is: behind all that was returned, and what did not count after that."""
        return self._reader.position

    def next_entries(self, timeout_seconds: float | None = None) -> list[CountedEntry]:
        """Return what counts of the next records; nothing also when none came in time, or none counts."""
        event = self._events.next_event(timeout_seconds)
        return list(self._take(event)) if event is not None else []

    def __iter__(self) -> Iterator[CountedEntry]:
        while True:
            yield from self.next_entries()

    def close(self) -> None:
        """End the stream."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, event: FeedEvent) -> Iterator[CountedEntry]:
        match event:
            case FeedItems():
                for item in event.items:
                    yield from self._take_item(item)
            case FeedRestart():
                self._reader.restart(event.offset)
            case FeedEnd() if not self._is_placed:
                self._is_placed = True
                self._reader = FeedReader(replace(FEED_START, offset=event.offset))

    def _take_item(self, item: FeedItem) -> Iterator[CountedEntry]:
        record = _decode(item)
        if record is None:
            self._reader.take_unreadable(item.next_offset)
            return
        verdict = self._reader.take(record, item.next_offset)
        if isinstance(record, FeedEntry) and verdict is not FeedVerdict.IGNORED:
            is_gap = verdict is FeedVerdict.GAP
            yield CountedEntry(record, item.offset, item.at, self._reader.position, is_gap)


def _decode(item: FeedItem) -> FeedRecord | None:
    """Decode a record; None: it is damaged, and counts for nobody."""
    try:
        return decode_feed_record(item.wire)
    except PoisonError as error:
        if error.code == "feed.too-new":
            raise
        return None
