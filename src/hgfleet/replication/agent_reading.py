"""Reads the messages that the index names back from the log.

Promises: what is returned are the bytes at exactly those offsets, in order, by few calls where they lie close
together.
Does not: check the messages; whoever applies them does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hgfleet.adapters.agent_index import IndexEntry
from hgfleet.errors import TransientError
from hgfleet.model.ids import Offset
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import ReplicationLog

MAX_GAP = 8  # records of other repositories that are read along rather than skipped


def read_entries(log: ReplicationLog, topic: Topic, entries: Sequence[IndexEntry]) -> list[bytes]:
    """Return the wire form of each entry. Raises TransientError, or RejectedError `log.overrun`."""
    wires: list[bytes] = []
    for span in _spans(entries):
        wires += _read_span(log, topic, span)
    return wires


def _spans(entries: Sequence[IndexEntry]) -> Iterator[list[IndexEntry]]:
    """Group entries that lie close together."""
    span: list[IndexEntry] = []
    for entry in entries:
        if span and not 0 <= entry.offset - span[-1].position.offset <= MAX_GAP:
            yield span
            span = []
        span.append(entry)
    if span:
        yield span


def _read_span(log: ReplicationLog, topic: Topic, span: Sequence[IndexEntry]) -> list[bytes]:
    wire_by_offset: dict[Offset, bytes] = {}
    partition, offset, last = span[0].partition, span[0].offset, span[-1].offset
    size_bytes = sum(entry.size_bytes for entry in span)
    while offset <= last:
        records = log.read(topic, partition, offset, size_bytes)
        if not records:
            raise TransientError("log.cut", "the log lacks a message that was read before", offset=offset)
        wire_by_offset |= {record.offset: record.value for record in records}
        offset = records[-1].next_offset
    try:
        return [wire_by_offset[entry.offset] for entry in span]
    except KeyError as error:
        raise TransientError("log.cut", "the log lacks a message that was read before") from error
