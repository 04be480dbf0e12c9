r"""What a change carries: the container of changegroup, phases, bookmarks and obsmarkers.

    hgfleet-payload/1\n
    <tag><chunk>...<0>   a section: a byte, then chunks, each a 32-bit length and its bytes; length 0 ends it
    <0>                  the end; nothing follows

Sections come in the order of their tags, each at most once. A changegroup is read and written in chunks, so a
payload of any size never lies in memory; the other sections are small and parsed as a whole.

Promises: reading what was written gives the same parts; whatever else the bytes are, reading raises
PoisonError `payload.damaged` (or `payload.too-new`) and nothing else.
Does not: know what Mercurial does with the parts, or open files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.ids import Node, parse_node

MAGIC = b"hgfleet-payload/1\n"
CHUNK_BYTES = 64 * 1024
MAX_CHUNK_BYTES = 16 * 1024 * 1024
MAX_SMALL_SECTION_BYTES = 1024 * 1024 * 1024
CHANGEGROUP_VERSIONS = frozenset({b"02", b"03"})
PHASE_NUMBERS = frozenset({0, 1, 2, 32, 96})  # public, draft, secret, archived, internal
_LENGTH = struct.Struct(">I")


class Tag(IntEnum):
    """The sections, in the order in which they must come."""

    END = 0
    CHANGEGROUP = 1  # two bytes: its version; then the changegroup, changesets in revision order
    PHASES = 2  # JSON, see PhaseChanges
    BOOKMARKS = 3  # JSON: {name: 40-hex, or null when deleted}
    OBSMARKERS = 4  # one byte: the obsstore's format version; then what the change appended to the obsstore
    PUSHES = 5  # JSON, see PastPush: only where a repository is taken over with its pushlog
    PUSHERS = 6  # of a `reset` only, as the following: the pushlog's two files as they are
    PUSHLOG = 7


class Source(Protocol):
    """What a payload is read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none only at the end."""
        ...


class Target(Protocol):
    """What a payload is written to."""

    def write(self, data: bytes, /) -> Any:
        """Take all of `data`."""
        ...


@dataclass(frozen=True, slots=True)
class PhaseChanges:
    """The final phase of every changeset whose phase this change set."""

    added: tuple[
        tuple[int, int], ...
    ] = ()  # (phase, run length) over the added changesets, in revision order
    moved: Mapping[int, tuple[Node, ...]] = field(default_factory=dict)  # other changesets, by final phase

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not self.added and not self.moved


@dataclass(frozen=True, slots=True)
class PastPush:
    """A push that a repository has had elsewhere: how many of the added changesets, when and by whom."""

    count: int
    at: float
    pusher: str


class PayloadWriter:
    """Writes the sections one after another; `close` ends the payload."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._last = Tag.END
        target.write(MAGIC)

    def write(self, tag: Tag, chunks: Iterable[bytes]) -> None:
        """Write one section from chunks of any size, empty ones included."""
        if tag <= self._last:
            raise ValueError("sections must rise")
        self._last = tag
        self._target.write(bytes((tag,)))
        for chunk in _rechunk(chunks):
            self._target.write(_LENGTH.pack(len(chunk)) + chunk)
        self._target.write(_LENGTH.pack(0))

    def write_changegroup(self, version: bytes, chunks: Iterable[bytes]) -> None:
        """Write the changegroup, streamed."""
        self.write(Tag.CHANGEGROUP, _prefixed(version, chunks))

    def write_phases(self, phases: PhaseChanges) -> None:
        """Write the phases."""
        moved = {str(phase): list(nodes) for phase, nodes in sorted(phases.moved.items())}
        self._write_json(Tag.PHASES, {"added": [list(run) for run in phases.added], "moved": moved})

    def write_bookmarks(self, node_by_name: Mapping[str, Node | None]) -> None:
        """Write bookmark moves; None deletes."""
        self._write_json(Tag.BOOKMARKS, dict(node_by_name))

    def write_obsmarkers(self, version: int, suffix: bytes) -> None:
        """Write what was appended to the obsstore; `suffix` has no version byte."""
        self.write(Tag.OBSMARKERS, (bytes((version,)), suffix))

    def write_pushes(self, pushes: Iterable[PastPush]) -> None:
        """Write the pushes that the added changesets came by, in order."""
        self._write_json(Tag.PUSHES, {"pushes": [[push.count, push.at, push.pusher] for push in pushes]})

    def write_file(self, tag: Tag, data: bytes) -> None:
        """Write a file that is taken over as it is."""
        self.write(tag, (data,))

    def close(self) -> None:
        """End the payload; the target stays open."""
        self._target.write(bytes((Tag.END,)))

    def _write_json(self, tag: Tag, value: object) -> None:
        self.write(tag, (json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii"),))


def _prefixed(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _rechunk(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Join small chunks and cut large ones: a changegroup comes in pieces of a few bytes."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            yield from _cut(b"".join(waiting))
            waiting, size = [], 0
    if size:
        yield from _cut(b"".join(waiting))


def _cut(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), MAX_CHUNK_BYTES):
        yield data[start : start + MAX_CHUNK_BYTES]


class SectionStream:
    """One section's bytes as a readable stream: `read(n)` returns n bytes unless the section ends."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rest = b""
        self._is_over = False

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, fewer only at the section's end; all that is left when negative."""
        parts: list[bytes] = []
        wanted = size
        while wanted != 0:
            if not self._rest and not self._fill():
                break
            part = self._rest if wanted < 0 else self._rest[:wanted]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            wanted -= len(part) if wanted > 0 else 0
        return b"".join(parts)

    def drain(self) -> None:
        """Skip what was not read."""
        self._rest = b""
        while self._fill():
            self._rest = b""

    def _fill(self) -> bool:
        if self._is_over:
            return False
        size = _LENGTH.unpack(_read_exactly(self._source, _LENGTH.size))[0]
        if size > MAX_CHUNK_BYTES:
            raise _damaged("a chunk is larger than allowed")
        self._is_over = size == 0
        self._rest = _read_exactly(self._source, size)
        return not self._is_over


def read_sections(source: Source) -> Iterator[tuple[Tag, SectionStream]]:
    """Yield the sections; what is not read of one is skipped when the next is asked for.

    No bytes at all are a payload without sections.
    """
    magic = source.read(len(MAGIC))
    if not magic:
        return
    _check_magic(magic + _read_exactly(source, len(MAGIC) - len(magic)))
    last = Tag.END
    while (tag := _read_tag(source)) is not Tag.END:
        if tag <= last:
            raise _damaged("sections are out of order")
        last = tag
        stream = SectionStream(source)
        yield tag, stream
        stream.drain()
    if source.read(1):
        raise _damaged("bytes follow its end")


def read_changegroup_version(stream: SectionStream) -> bytes:
    """Take the changegroup's version from the head of its section."""
    version = stream.read(2)
    if version not in CHANGEGROUP_VERSIONS:
        raise PoisonError("payload.too-new", "changegroup of an unknown version", hint="upgrade this host")
    return version


def read_phases(stream: SectionStream) -> PhaseChanges:
    """Parse the phases section."""
    fields = _read_json(stream)
    if fields.keys() != {"added", "moved"} or not isinstance(fields["moved"], dict):
        raise _damaged("the phases are not what they should be")
    if not isinstance(fields["added"], list):
        raise _damaged("the phases are not what they should be")
    added = tuple(_parse_run(run) for run in fields["added"])
    moved = {_parse_phase_name(name): _parse_nodes(nodes) for name, nodes in fields["moved"].items()}
    return PhaseChanges(added, moved)


def read_bookmarks(stream: SectionStream) -> dict[str, Node | None]:
    """Parse the bookmarks section."""
    return {_checked_name(name): _parse_optional_node(node) for name, node in _read_json(stream).items()}


def read_obsmarkers(stream: SectionStream) -> tuple[int, bytes]:
    """Parse the obsmarkers section into (format version, suffix)."""
    data = _read_small(stream)
    if not data:
        raise _damaged("the obsmarkers have no version")
    return data[0], data[1:]


def read_pushes(stream: SectionStream) -> tuple[PastPush, ...]:
    """Parse the section of past pushes."""
    items = _read_json(stream).get("pushes")
    if not isinstance(items, list):
        raise _damaged("the pushes are not a list")
    return tuple(_parse_past_push(item) for item in items)


def _parse_past_push(item: object) -> PastPush:
    if not isinstance(item, list) or [type(value) for value in item] != [int, float, str]:
        raise _damaged("a past push is not what it should be")
    count, at, pusher = item
    if count < 1 or "\n" in pusher:
        raise _damaged("a past push is out of range")
    return PastPush(count, at, pusher)


def read_file(stream: SectionStream) -> bytes:
    """Return a section that is a file as it is."""
    return _read_small(stream)


def _parse_run(run: object) -> tuple[int, int]:
    if not isinstance(run, list) or len(run) != 2 or any(type(number) is not int for number in run):
        raise _damaged("a run of phases is not a pair of numbers")
    phase, length = run
    if phase not in PHASE_NUMBERS or length < 1:
        raise _damaged("a run of phases is out of range")
    return phase, length


def _parse_phase_name(name: str) -> int:
    if not name.isascii() or not name.isdigit() or int(name) not in PHASE_NUMBERS:
        raise _damaged("an unknown phase")
    return int(name)


def _parse_nodes(nodes: object) -> tuple[Node, ...]:
    if not isinstance(nodes, list):
        raise _damaged("moved changesets are not a list")
    return tuple(_checked_node(node) for node in nodes)


def _parse_optional_node(node: object) -> Node | None:
    return None if node is None else _checked_node(node)


def _checked_node(node: object) -> Node:
    try:
        return parse_node(node if isinstance(node, str) else "")
    except RejectedError as error:
        raise _damaged("not a changeset id") from error


def _checked_name(name: str) -> str:
    if not name or "\n" in name or "\0" in name:
        raise _damaged("a bookmark's name is not one")
    return name


def _read_json(stream: SectionStream) -> dict[str, Any]:
    try:
        value = json.loads(_read_small(stream))
    except (ValueError, RecursionError) as error:
        raise _damaged("a section is not JSON") from error
    if not isinstance(value, dict):
        raise _damaged("a section is not an object")
    return value


def _read_small(stream: SectionStream) -> bytes:
    data = stream.read(MAX_SMALL_SECTION_BYTES + 1)
    if len(data) > MAX_SMALL_SECTION_BYTES:
        raise _damaged("a section is larger than allowed")
    return data


def _check_magic(magic: bytes) -> None:
    if magic == MAGIC:
        return
    if magic.startswith(b"hgfleet-payload/"):
        raise PoisonError("payload.too-new", "payload of a newer format", hint="upgrade this host")
    raise _damaged("it does not start with its format line")


def _read_tag(source: Source) -> Tag:
    number = _read_exactly(source, 1)[0]
    try:
        return Tag(number)
    except ValueError as error:
        raise PoisonError(
            "payload.too-new", "payload with an unknown section", hint="upgrade this host"
        ) from error


def _read_exactly(source: Source, size: int) -> bytes:
    data = source.read(size)
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            raise _damaged("it is cut off")
        data += more
    return data


def _damaged(reason: str) -> PoisonError:
    return PoisonError("payload.damaged", f"damaged payload: {reason}")
