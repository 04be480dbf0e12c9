"""What identifies a repository's state cheaply: the fingerprint that travels with every change.

Promises: two copies with equal fingerprints after equal messages hold the same changesets in the same order,
the same phase roots, bookmarks and obsmarker bytes; a copy that something else wrote to has another one.
Does not: read repositories (hgext computes the parts) or replace the full digest of a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import PoisonError
from hgfleet.model.ids import NULL_NODE, Digest, Node


def digest_lines(lines: Iterable[bytes]) -> Digest:
    """SHA-256 over the sorted lines, each ended by a newline; the form of both digests below."""
    total = hashlib.sha256()
    for line in sorted(lines):
        total.update(line + b"\n")
    return Digest(total.hexdigest())


EMPTY_DIGEST = digest_lines(())


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A repository's state at a seq, in constant size."""

    changelog_length: int = 0  # number of revisions, unfiltered
    tip: Node = NULL_NODE  # the last revision
    obsstore_bytes: int = 0
    phases: Digest = EMPTY_DIGEST  # lines b"<phase number> <40-hex root>", public has none
    bookmarks: Digest = EMPTY_DIGEST  # lines b"<40-hex> <name, UTF-8>"
    pushes: int = 0  # the highest PushId

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that the message body and the seq file carry."""
        return {name: getattr(self, name) for name in self.__slots__}


_EXAMPLE = Fingerprint().to_json()


def parse_fingerprint(fields: Any) -> Fingerprint:
    """Check the JSON form; raise PoisonError `fingerprint.damaged`."""
    is_fit = isinstance(fields, dict) and fields.keys() == _EXAMPLE.keys()
    if not is_fit or not all(_is_like(fields[name], value) for name, value in _EXAMPLE.items()):
        raise PoisonError("fingerprint.damaged", "damaged state fingerprint")
    return Fingerprint(**fields)


def last_record(data: bytes) -> bytes:
    """Return the record in force of a file that grows by a line for each change: the last whole line.

    A file that was written as a whole over several lines is one record.
    """
    end = data.rfind(b"\n")
    if end < 0:
        return data
    line = data[data.rfind(b"\n", 0, end) + 1 : end]
    return data if line == b"}" else line


def _is_like(value: Any, example: Any) -> bool:
    """Whether the value is a natural number, or hex digits of the same length, as the example is."""
    if isinstance(example, int):
        return type(value) is int and value >= 0
    return isinstance(value, str) and len(value) == len(example) and not value.strip("0123456789abcdef")
