"""The state topic as a mirror hears it: one fold in force, and one that grows up to take its place.

Promises: what `view` tells is the fold of everything up to some end of the topic; after a reconnect it stays
the old one until the new stream has come as far as the topic was.
Does not: follow the stream (mirror_inputs) or draw conclusions (applier).
"""

from __future__ import annotations

from collections.abc import Iterator

from hgfleet.adapters.agent_answers import StateEnd, StateItem, StateRecords
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import StateRecord


class MirrorState:
    """The fold in force, whether it is fresh, and the one to come."""

    def __init__(self) -> None:
        self.view = FleetView()
        self.is_known = False  # whether the fold follows the topic now
        self._coming: FleetView | None = None

    def begin(self) -> None:
        """Expect the stream from its start."""
        self.is_known, self._coming = False, FleetView()

    def lose(self) -> None:
        """Go on with what was known."""
        self.is_known, self._coming = False, None

    def take_end(self, _end: StateEnd) -> None:
        """Put the new fold in force: it is as far as the topic was when the stream began."""
        if self._coming is not None:
            self.view, self._coming, self.is_known = self._coming, None, True

    def take(self, heard: StateRecords) -> Iterator[tuple[StateRecord, StateItem]]:
        """Fold records; yield those that changed the fold in force, each right after it was folded."""
        for item in heard.records:
            if self._coming is not None:
                self._coming.take(item.key, item.value, item.offset)
                continue
            record = self.view.take(item.key, item.value, item.offset)
            if record is not None:
                yield record, item
