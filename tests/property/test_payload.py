"""A payload read back is what was written, in whatever pieces; anything else is refused as damaged."""

import io
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hgfleet.errors import PoisonError
from hgfleet.model import payload
from hgfleet.model.ids import Node
from hgfleet.model.payload import PayloadWriter, PhaseChanges, Tag

NODES = st.binary(min_size=20, max_size=20).map(lambda data: Node(data.hex()))
NUMBERS = st.sampled_from(sorted(payload.PHASE_NUMBERS))
PHASES = st.builds(
    PhaseChanges,
    st.lists(st.tuples(NUMBERS, st.integers(1, 10**9)), max_size=4).map(tuple),
    st.dictionaries(NUMBERS, st.lists(NODES, max_size=3).map(tuple), max_size=3),
)
NAMES = st.text(min_size=1, max_size=9).filter(lambda name: not set(name) & {"\n", "\0"} and _is_utf8(name))
BOOKMARKS = st.dictionaries(NAMES, NODES | st.none(), max_size=4)
CHUNKS = st.lists(st.binary(max_size=100) | st.just(b"x" * (payload.CHUNK_BYTES + 1)), max_size=6)
PUSHES = st.lists(
    st.builds(payload.PastPush, st.integers(1, 10**6), st.floats(0, 1e10), NAMES), max_size=4
).map(tuple)
OBSMARKERS = st.tuples(st.integers(0, 255), st.binary(max_size=50))


def _is_utf8(name: str) -> bool:
    return name.encode("utf-8", "replace").decode() == name


class Trickle:
    """A source that gives a few bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(size, self._most))


def write(
    chunks: list[bytes] | None,
    phases: PhaseChanges | None,
    bookmarks: dict[str, Node | None] | None,
    obsmarkers: tuple[int, bytes] | None,
    pushes: tuple[payload.PastPush, ...] | None = None,
) -> bytes:
    target = io.BytesIO()
    writer = PayloadWriter(target)
    if chunks is not None:
        writer.write_changegroup(b"02", iter(chunks))
    if phases is not None:
        writer.write_phases(phases)
    if bookmarks is not None:
        writer.write_bookmarks(bookmarks)
    if obsmarkers is not None:
        writer.write_obsmarkers(*obsmarkers)
    if pushes is not None:
        writer.write_pushes(pushes)
    writer.close()
    return target.getvalue()


def read(source: payload.Source) -> Iterator[object]:
    """Read everything, the changegroup in odd pieces."""
    for tag, stream in payload.read_sections(source):
        match tag:
            case Tag.CHANGEGROUP:
                payload.read_changegroup_version(stream)
                pieces = iter(partial(stream.read, 37), b"")
                yield b"".join(pieces)
            case Tag.PHASES:
                yield payload.read_phases(stream)
            case Tag.BOOKMARKS:
                yield payload.read_bookmarks(stream)
            case Tag.OBSMARKERS:
                yield payload.read_obsmarkers(stream)
            case Tag.PUSHES:
                yield payload.read_pushes(stream)


@given(
    st.none() | CHUNKS,
    st.none() | PHASES,
    st.none() | BOOKMARKS,
    st.none() | OBSMARKERS,
    st.none() | PUSHES,
    st.integers(1, 5000),
)
def test_what_was_written_is_read_in_whatever_pieces(
    chunks: list[bytes] | None,
    phases: PhaseChanges | None,
    bookmarks: dict[str, Node | None] | None,
    obsmarkers: tuple[int, bytes] | None,
    pushes: tuple[payload.PastPush, ...] | None,
    most: int,
) -> None:
    written = [
        b"".join(chunks) if chunks is not None else None,
        phases,
        bookmarks,
        obsmarkers,
        pushes,
    ]
    expected = [part for part in written if part is not None]
    data = write(chunks, phases, bookmarks, obsmarkers, pushes)

    assert list(read(Trickle(data, most))) == expected


def refusal(data: bytes) -> str:
    """Return the code with which reading refuses, "" when it does not."""
    try:
        list(read(io.BytesIO(data)))
    except PoisonError as error:
        return error.code
    return ""


EXAMPLE = write(
    [b"abc"],
    PhaseChanges(((0, 3),), {1: (Node("ab" * 20),)}),
    {"b": None},
    (1, b"marker"),
    (payload.PastPush(1, 2.5, "a"),),
)


@given(st.integers(0, len(EXAMPLE) - 1))
def test_a_payload_that_ends_early_is_damaged(end: int) -> None:
    if end == 0:
        assert list(read(io.BytesIO(b""))) == []
        return
    with pytest.raises(PoisonError):
        list(read(io.BytesIO(EXAMPLE[:end])))


@given(st.integers(0, len(EXAMPLE) - 1), st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused_and_nothing_else(index: int, value: int) -> None:
    data = bytearray(EXAMPLE)
    data[index] = value
    assert refusal(bytes(data)) in {"", "payload.damaged", "payload.too-new"}


@given(st.binary(max_size=200))
@example(payload.MAGIC + b"\x02\x00\x00\x00\x02{}\x00\x00\x00\x00\x00")
@example(payload.MAGIC + b"\x03\x00\x00\x00\x02[]\x00\x00\x00\x00\x00")
@example(payload.MAGIC + b"\x02" + (b"\xff" * 4))
@example(EXAMPLE + b"more")
@example(b"hgfleet-payload/2\n\x00")
def test_anything_at_all_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    assert refusal(data) in {"", "payload.damaged", "payload.too-new"}


def test_what_is_not_read_of_a_section_is_skipped() -> None:
    assert [tag for tag, _stream in payload.read_sections(io.BytesIO(EXAMPLE))] == [
        Tag.CHANGEGROUP,
        Tag.PHASES,
        Tag.BOOKMARKS,
        Tag.OBSMARKERS,
        Tag.PUSHES,
    ]


def test_sections_out_of_order_are_refused_by_reader_and_writer() -> None:
    writer = PayloadWriter(io.BytesIO())
    writer.write_bookmarks({})
    with pytest.raises(ValueError, match="rise"):
        writer.write_phases(PhaseChanges())
    section = b"\x03\x00\x00\x00\x02{}\x00\x00\x00\x00"
    with pytest.raises(PoisonError, match="order"):
        list(read(io.BytesIO(payload.MAGIC + section + section + b"\x00")))


def test_a_large_changegroup_never_lies_in_memory_as_a_whole(tmp_path) -> None:
    import tracemalloc

    path = tmp_path / "payload"
    size = 24 * 1024 * 1024
    tracemalloc.start()
    with path.open("wb") as target:
        writer = PayloadWriter(target)
        writer.write_changegroup(b"02", (b"z" * 65536 for _ in range(size // 65536)))
        writer.close()
    with path.open("rb") as source:
        [(_tag, stream)] = list(_first(source))
        total = 0
        while data := stream.read(1 << 20):
            total += len(data)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == size + 2
    assert peak < 8 * 1024 * 1024


def _first(source: io.BufferedReader) -> Iterator[tuple[Tag, payload.SectionStream]]:
    yield next(payload.read_sections(source))
