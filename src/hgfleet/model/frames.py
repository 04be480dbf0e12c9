"""The framing of hgfleet's own local sockets: log agent, session server, apply workers.

A frame is two big-endian 32-bit lengths, a JSON object and a body of raw bytes:

    <header length><body length><header, JSON object, UTF-8><body>

Promises: a decoder fed any split of the bytes returns the same frames; bad input raises PoisonError
`frame.damaged` and nothing larger than the limits is ever buffered.
Does not: do I/O, or know what the headers mean (docs/design/local-protocols.md lists them).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import FleetError, PoisonError

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_BODY_BYTES = 256 * 1024 * 1024
LENGTHS = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Frame:
    """One parsed frame."""

    header: dict[str, Any]
    body: bytes = b""


def encode_frame(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Return the frame's bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body


def parse_lengths(data: bytes) -> tuple[int, int]:
    """Return (header, body) lengths from the first eight bytes; raise PoisonError when over the limits."""
    header_size, body_size = LENGTHS.unpack(data)
    if header_size > MAX_HEADER_BYTES or body_size > MAX_BODY_BYTES:
        raise PoisonError("frame.damaged", "frame larger than allowed")
    return header_size, body_size


def parse_header(text: bytes) -> dict[str, Any]:
    """Parse a frame's header; raise PoisonError when it is not a JSON object."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PoisonError("frame.damaged", "frame header is not JSON") from error
    if not isinstance(header, dict):
        raise PoisonError("frame.damaged", "frame header is not an object")
    return header


def error_header(error: FleetError) -> dict[str, Any]:
    """Return the header of an answer that names an error; adapters.local_client raises it again."""
    plain = (str, int, float, bool, type(None))
    context = {
        name: value if isinstance(value, plain) else str(value) for name, value in error.context.items()
    }
    fields = {
        "class": type(error).__name__,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "context": context,
    }
    return {"ok": False, "error": fields}


class FrameDecoder:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take more bytes and return the frames that are complete now; the others wait for more bytes."""
        self._buffer += data
        return iter(self._next, None)

    @property
    def is_empty(self) -> bool:
        """Whether the stream could end here without cutting a frame."""
        return not self._buffer

    def _next(self) -> Frame | None:
        if len(self._buffer) < LENGTHS.size:
            return None
        header_size, body_size = parse_lengths(bytes(self._buffer[: LENGTHS.size]))
        end = LENGTHS.size + header_size + body_size
        if len(self._buffer) < end:
            return None
        header_end = LENGTHS.size + header_size
        header = parse_header(bytes(self._buffer[LENGTHS.size : header_end]))
        body = bytes(self._buffer[header_end:end])
        del self._buffer[:end]
        return Frame(header, body)
