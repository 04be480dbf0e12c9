"""Keeps a feed writer beside one life of the coordinator, and tells it what has become visible.

Promises: the writer runs from the first `turn` to the end of the context, which is that life's.
Does not: write the feed (feed_writer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from hgfleet.model.feed import FEED_START, FeedPosition
from hgfleet.model.fleet import FleetView
from hgfleet.model.ids import RepoId, Seq
from hgfleet.replication.feed_writer import FeedLag, FeedOptions, FeedStart, FeedWriter


class FeedKeeper:
    """Context of one life; `find_start` is called in the writer's thread."""

    def __init__(self, options: FeedOptions, find_start: Callable[[], FeedStart]) -> None:
        self._writer = FeedWriter(options, find_start)
        self._is_running = False

    def turn(self, seqs: Mapping[RepoId, Seq]) -> None:
        """Tell the writer what has become visible.

        Call it only after the coordinator's claim was read: up to there everything was read to an end.
        """
        if seqs:
            self._writer.news.put(seqs)
        if not self._is_running:
            self._is_running = True
            self._writer.start()
        self._writer.check()

    @property
    def lag(self) -> FeedLag:
        """How far the feed is behind, as the writer last said."""
        return self._writer.news.lag

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_running:
            self._writer.stop()


def feed_start(view: FleetView) -> FeedStart:
    """Return where the state topic says that the feed is."""
    place, seqs = view.feed.place, view.feed.seqs()
    position = FeedPosition(place.offset, place.turn, place.number) if place else FEED_START
    return FeedStart(position, seqs)
