"""How far the feed is, as its writers note it in the state topic, which keeps every key's newest record.

The feed itself is cut behind its retention, so it cannot tell alone what has entered it. A reader begins with
the marks and goes on from the offset that came with them; what lies between is read from the feed again.

Promises: marks only repeat what counts in the feed, so of several the highest is true, whoever wrote it and
whenever it landed; with `FeedPlace` read, no mark is older than its offset.
Does not: say what counts in the feed (model.feed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgfleet.model.ids import Offset, RepoId, Seq, parse_repo_id


@dataclass(frozen=True, slots=True)
class FeedMark:
    """The feed has the repository up to `seq`; `is_over`: it was unbound and nothing of it follows.

    No decision: it repeats what the feed says, and outlives the feed's retention. Only a turn's own writer
    writes its keys.
    """

    turn: int
    repository: RepoId
    seq: Seq
    is_over: bool = False

    @property
    def key(self) -> str:
        return f"feed/{self.turn}/{self.repository}"

    @property
    def value(self) -> Mapping[str, Any]:
        return {"seq": self.seq, "is_over": self.is_over}


@dataclass(frozen=True, slots=True)
class FeedPlace:
    """Everything that stood in the feed before this offset is in the marks."""

    turn: int
    offset: Offset
    number: int  # of the turn's last entry before it

    @property
    def key(self) -> str:
        return f"feed/{self.turn}"

    @property
    def value(self) -> Mapping[str, Any]:
        return {"offset": self.offset, "number": self.number}


class FeedMarks:
    """The fold of both."""

    def __init__(self) -> None:
        self.place: FeedPlace | None = None
        self._mark_by_repository: dict[RepoId, FeedMark] = {}

    def take(self, record: FeedMark | FeedPlace) -> set[str]:
        """Take the next record; return the keys that mean nothing any more."""
        return self._take_place(record) if isinstance(record, FeedPlace) else self._take_mark(record)

    def seqs(self) -> dict[RepoId, Seq]:
        """Return up to where the feed has each repository."""
        return {repository: mark.seq for repository, mark in self._mark_by_repository.items()}

    def _take_place(self, record: FeedPlace) -> set[str]:
        known = self.place
        if known and (record.turn, record.offset) < (known.turn, known.offset):
            return {record.key} - {known.key}
        self.place = record
        return {known.key} - {record.key} if known else set()

    def _take_mark(self, record: FeedMark) -> set[str]:
        known = self._mark_by_repository.get(record.repository)
        if known and (record.seq, record.turn) < (known.seq, known.turn):
            return {record.key} - {known.key}
        self._mark_by_repository[record.repository] = record
        superseded = {known.key} - {record.key} if known else set()
        if record.is_over:
            del self._mark_by_repository[record.repository]
            superseded.add(record.key)
        return superseded


def parse_feed_record(words: list[str], value: Mapping[str, Any]) -> FeedMark | FeedPlace | None:
    """Parse a record of the state topic whose key is `feed/…`, split; raise ValueError or RejectedError."""
    match words:
        case ["feed", turn]:
            offset, number = Offset(parse_natural(value, "offset")), parse_natural(value, "number")
            return FeedPlace(parse_number(turn), offset, number)
        case ["feed", turn, repository]:
            seq, is_over = Seq(parse_natural(value, "seq")), value.get("is_over") is True
            return FeedMark(parse_number(turn), parse_repo_id(repository), seq, is_over)
        case _:
            return None


def parse_number(word: str) -> int:
    """Parse a number of a key, which has one form."""
    if not (word.isascii() and word.isdigit()) or len(word) > 18 or (word[0] == "0" and word != "0"):
        raise ValueError("not a number in its one form")
    return int(word)


def parse_natural(value: Mapping[str, Any], name: str) -> int:
    """Take a number from 0 out of a value."""
    number = value.get(name)
    if type(number) is not int or number < 0:
        raise ValueError(name)
    return number
