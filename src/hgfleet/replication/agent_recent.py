"""The newest records of every place, in memory: what nearly every reader asks for has just been folded.

Promises: what is returned is what the log gave, in offset order; nothing is returned where anything asked for
is not here, so the log is asked then. A place never holds more than its bytes, and one record.
Does not: read the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hgfleet.model.ids import Offset
from hgfleet.ports.replication_log import Record
from hgfleet.replication.agent_log_io import Place

KEPT_BYTES = 1024 * 1024  # per place


@dataclass(slots=True)
class _Kept:
    records: deque[Record] = field(default_factory=deque)
    size_bytes: int = 0


class RecentRecords:
    """What was read last, by place."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept_by_place: dict[Place, _Kept] = {}

    def note(self, place: Place, records: Sequence[Record]) -> None:
        """Keep what was just read, which follows what was read before."""
        kept = self._kept_by_place.setdefault(place, _Kept())
        kept.records.extend(records)
        kept.size_bytes += sum(len(record.value) for record in records)
        while kept.size_bytes > self._kept_bytes and len(kept.records) > 1:
            kept.size_bytes -= len(kept.records.popleft().value)

    def since(self, place: Place, offset: Offset) -> list[Record] | None:
        """Return the records from an offset on; None when some of them may be no longer here."""
        kept = self._kept_by_place.get(place)
        if kept is None or kept.records[0].offset > offset:
            return None
        found: list[Record] = []
        for record in reversed(kept.records):
            if record.offset < offset:
                break
            found.append(record)
        return found[::-1]

    def at(self, place: Place, offsets: Sequence[Offset]) -> list[bytes] | None:
        """Return the values of the records at these offsets, which rise; None when one is not here."""
        if not offsets:
            return []
        records = self.since(place, offsets[0]) or ()
        value_by_offset = {record.offset: record.value for record in records}
        values = [value_by_offset.get(offset) for offset in offsets]
        return [value for value in values if value is not None] if None not in values else None
