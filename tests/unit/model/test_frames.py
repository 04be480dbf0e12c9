"""Frames of the local sockets."""

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.frames import (
    LENGTHS,
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    Frame,
    FrameDecoder,
    encode_frame,
    parse_header,
    parse_lengths,
)

TWO = encode_frame({"op": "hello"}, b"body") + encode_frame({"op": "last"})


def test_frames_come_out_as_they_went_in() -> None:
    frames = list(FrameDecoder().feed(TWO))
    assert frames == [Frame({"op": "hello"}, b"body"), Frame({"op": "last"}, b"")]


@pytest.mark.parametrize("cut", range(len(TWO) + 1))
def test_a_cut_anywhere_changes_nothing(cut: int) -> None:
    decoder = FrameDecoder()
    frames = [*decoder.feed(TWO[:cut]), *decoder.feed(TWO[cut:])]
    assert frames == list(FrameDecoder().feed(TWO))
    assert decoder.is_empty


def test_a_stream_that_ends_within_a_frame_is_not_empty() -> None:
    decoder = FrameDecoder()
    assert list(decoder.feed(TWO[:-1]))
    assert not decoder.is_empty


def test_bytes_count_even_if_nobody_fetches_the_frames() -> None:
    decoder = FrameDecoder()
    decoder.feed(TWO[:5])
    assert len(list(decoder.feed(TWO[5:]))) == 2


@pytest.mark.parametrize(("header", "body"), [(MAX_HEADER_BYTES + 1, 0), (2, MAX_BODY_BYTES + 1)])
def test_a_frame_over_the_limits_is_refused_before_it_is_buffered(header: int, body: int) -> None:
    with pytest.raises(PoisonError, match="larger"):
        parse_lengths(LENGTHS.pack(header, body))
    with pytest.raises(PoisonError):
        list(FrameDecoder().feed(LENGTHS.pack(header, body)))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000])
def test_a_header_that_is_no_object_is_damaged(text: bytes) -> None:
    with pytest.raises(PoisonError) as poison:
        parse_header(text)
    assert poison.value.code == "frame.damaged"
