"""Which records of the feed count, decided alike by every reader.

Turns are numbered; the highest opened so far is in force, and entries of a lower one come from a writer that
was replaced. A writer reads up to its own opening before it writes an entry, so it knows every entry that
counts and adds only what follows, numbered within its turn: a number that was read before is a repetition.
docs/design/feed.md has the reasons.

Promises: two readers from the same position agree on what counts. What counts comes once per repository and
in the order of its seqs, and whatever is missing in between is said (GAP), never passed over.
Does not: read or write the topic, or decide what enters it (model.feeding).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from hgfleet.model.feed_records import FeedEntry, FeedRecord, Opening
from hgfleet.model.ids import Offset, RepoId, Seq
from hgfleet.model.message import Kind


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """Where a reader stands: the next offset, the turn in force there and its last entry, always together."""

    offset: Offset
    turn: int
    number: int  # or one of the following


UNKNOWN = -1  # the first entry is taken as it comes
MISSING = -2  # entries before it may be missing
FEED_START = FeedPosition(Offset(0), 0, UNKNOWN)


class FeedVerdict(StrEnum):
    """What taking a record did."""

    OPENED = "opened"  # its turn is in force from here on
    COUNTS = "counts"  # it is its repository's next entry, for every reader and for ever
    GAP = "gap"  # the same, but entries before it are missing: the feed was cut, or lost some
    IGNORED = "ignored"  # of a replaced writer, or known: it never counts


class FeedReader:
    """The fold of the feed from a position on.

    `seqs` is the last entry of each repository up to there, as far as it is known; the first one that is read
    of any other repository counts as it comes. A repository that was unbound is forgotten.
    """

    def __init__(self, position: FeedPosition = FEED_START, seqs: Mapping[RepoId, Seq] | None = None) -> None:
        self.position = position
        self.seqs: dict[RepoId, Seq] = dict(seqs or {})

    def take(self, record: FeedRecord, next_offset: Offset) -> FeedVerdict:
        """Take the record at the position; `next_offset` is the one after it."""
        turn, number = self.position.turn, self.position.number
        is_opening = isinstance(record, Opening)
        self.position = replace(self.position, offset=next_offset)
        if record.turn < turn or (is_opening and record.turn == turn):
            return FeedVerdict.IGNORED
        is_missing = number == MISSING
        if isinstance(record, Opening):
            self.position = FeedPosition(next_offset, record.turn, MISSING if is_missing else 0)
            return FeedVerdict.OPENED
        last = number if record.turn == turn or is_missing else UNKNOWN  # its opening was not read
        if record.number <= last:
            return FeedVerdict.IGNORED
        self.position = FeedPosition(next_offset, record.turn, record.number)
        return self._take_entry(record, is_next=last in {UNKNOWN, record.number - 1})

    def take_unreadable(self, next_offset: Offset) -> None:
        """Take a record that is no feed record: no reader can count it."""
        self.position = replace(self.position, offset=next_offset)

    def restart(self, offset: Offset) -> None:
        """Go on where the feed begins now: what lay before was removed, or it is another topic.

        The next entry is a GAP. The turn stays: a writer that lost its feed opens a higher one all the same.
        """
        self.position = FeedPosition(offset, self.position.turn, MISSING)

    def _take_entry(self, entry: FeedEntry, *, is_next: bool) -> FeedVerdict:
        last = self.seqs.get(entry.repository)
        if last is not None and entry.seq <= last:
            return FeedVerdict.IGNORED
        self.seqs[entry.repository] = entry.seq
        unbound = unbound_repository(entry)
        if unbound is not None:
            self.seqs.pop(unbound, None)
        is_next = is_next and (last is None or entry.after <= last)
        return FeedVerdict.COUNTS if is_next else FeedVerdict.GAP


def unbound_repository(entry: FeedEntry) -> RepoId | None:
    """Return the repository whose last word in the feed this is, None when it is nobody's."""
    repository = entry.body.get("repository")
    if entry.kind != Kind.UNBIND or not isinstance(repository, str):
        return None
    return RepoId(repository)
