"""The pushlog: which push brought which changesets, who pushed them and when.

Two append-only files in `.hg/store`, part of Mercurial's transaction. `hgfleet-pushlog` has one record of
fixed size per push, so a PushId is a record's number; a push is a range of revisions, so the push of a
changeset is found by bisection. `hgfleet-pushers` has one name per line.

Promises: a reader sees whole records only, up to the byte length it was given; ids rise by one from 1; the
date is the message's, so every copy has the same.
Does not: know which changesets a reader may see (give it the exposed length), or need Mercurial.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import PoisonError
from hgfleet.model.ids import PushId, Seq

NAME = "hgfleet-pushlog"
PUSHERS_NAME = "hgfleet-pushers"
_RECORD = struct.Struct(">QdIIII")  # seq, date, first revision, revision after the last, pusher, nothing
RECORD_BYTES = _RECORD.size


@dataclass(frozen=True, slots=True)
class Push:
    """One push as the pushlog has it."""

    push_id: PushId
    seq: Seq
    at: float  # Unix seconds
    first_rev: int
    end_rev: int  # the revision after the last
    pusher: str


class Pushlog:
    """Reads the pushlog of one repository; cheap to make, holds one descriptor until closed."""

    def __init__(self, store: str | Path, limit_bytes: int | None = None) -> None:
        """Open the files in `store` (`<root>/.hg/store`), cut at `limit_bytes` of the pushlog."""
        self._store = Path(store)
        self._file = _open(self._store / NAME)
        size = os.fstat(self._file).st_size if self._file is not None else 0
        self._count = (size if limit_bytes is None else min(size, limit_bytes)) // RECORD_BYTES
        self._pushers: list[str] = []

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Pushlog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def last_id(self) -> PushId:
        """The highest PushId; 0 when there is none."""
        return PushId(self._count)

    @property
    def size_bytes(self) -> int:
        """How many bytes of the file are read: what a view remembers."""
        return self._count * RECORD_BYTES

    def close(self) -> None:
        """Let the descriptor go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def push(self, push_id: int) -> Push | None:
        """Return the push with this id, None when there is none."""
        if not 1 <= push_id <= self._count:
            return None
        return self._push(push_id, self._fields(push_id))

    def range(self, first_id: int, last_id: int) -> Iterator[Push]:
        """Yield the pushes first_id..last_id, both inclusive, as far as they exist."""
        first, last = max(first_id, 1), min(last_id, self._count)
        if first > last:
            return
        data = self._read(first, last - first + 1)
        for push_id, fields in enumerate(_RECORD.iter_unpack(data), first):
            yield self._push(push_id, fields)

    def push_of_rev(self, rev: int) -> Push | None:
        """Return the push that brought this revision, None when it lies beyond the last push."""
        if rev < 0:
            return None
        ids = range(1, self._count + 1)
        return self.push(1 + bisect_right(ids, rev, key=lambda push_id: self._fields(push_id)[3]))

    def first_id_at_or_after(self, at: float) -> PushId:
        """Return the lowest PushId dated `at` or later, one more than the last when there is none.

        Dates follow the clock of the host that accepted the push: they may step back a little, the answer
        then is one of the candidates.
        """
        ids = range(1, self._count + 1)
        return PushId(1 + bisect_left(ids, at, key=lambda push_id: self._fields(push_id)[1]))

    def _fields(self, push_id: int) -> tuple[int, float, int, int, int, int]:
        return _RECORD.unpack(self._read(push_id, 1))

    def _read(self, first_id: int, count: int) -> bytes:
        if self._file is None:
            raise PoisonError("pushlog.damaged", "the pushlog is closed")
        data = os.pread(self._file, count * RECORD_BYTES, (first_id - 1) * RECORD_BYTES)
        if len(data) != count * RECORD_BYTES:
            raise PoisonError("pushlog.damaged", "the pushlog is cut off")
        return data

    def _push(self, push_id: int, fields: tuple[int, float, int, int, int, int]) -> Push:
        seq, at, first_rev, end_rev, pusher, _nothing = fields
        return Push(PushId(push_id), Seq(seq), at, first_rev, end_rev, self._pusher(pusher))

    def _pusher(self, index: int) -> str:
        if index >= len(self._pushers):
            self._pushers = read_pushers(self._store)
        if index >= len(self._pushers):
            raise PoisonError("pushlog.damaged", "the pushlog names a pusher that its list lacks")
        return self._pushers[index]


def read_pushers(store: str | Path) -> list[str]:
    """Return the names in the order of their numbers."""
    try:
        data = Path(store, PUSHERS_NAME).read_bytes()
    except FileNotFoundError:
        return []
    return data.decode("utf-8").split("\n")[:-1]


def count_pushes(store: str | Path) -> int:
    """Return the highest PushId on disk."""
    try:
        return Path(store, NAME).stat().st_size // RECORD_BYTES
    except FileNotFoundError:
        return 0


def format_rows(store: str | Path, pushes: Sequence[Push]) -> tuple[bytes, bytes]:
    """Return what these pushes add to the two files: records, and names that the list lacks."""
    names = read_pushers(store)
    known = len(names)
    number_by_name = {name: number for number, name in enumerate(names)}
    records = []
    for push in pushes:
        number = number_by_name.setdefault(push.pusher, len(number_by_name))
        records.append(_RECORD.pack(push.seq, push.at, push.first_rev, push.end_rev, number, 0))
    added = "".join(f"{name}\n" for name in list(number_by_name)[known:])
    return b"".join(records), added.encode("utf-8")


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
