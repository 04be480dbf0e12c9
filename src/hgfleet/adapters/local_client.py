"""A blocking client of hgfleet's own local sockets: one connection, one request at a time.

Promises: an answer is the answer to this request or an error of hgfleet.errors; an error frame is raised as
the class it names; a connection that broke is TransientError `local.unreachable` before anything was sent and
InDoubtError `local.cut-off` after. A socket file that belongs to somebody else is never spoken to.
Does not: retry, or know the operations (docs/design/local-protocols.md).
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hgfleet import errors
from hgfleet.errors import FleetError, InDoubtError, InvariantError, TransientError
from hgfleet.model.frames import LENGTHS, Frame, encode_frame, parse_header, parse_lengths

_PEER_CREDENTIALS = struct.Struct("3i")
_CHUNK_BYTES = 1024 * 1024
_LEAST_BYTES = 16 * 1024


class LocalClient:
    """One connection to a local server; not for use by two threads at once."""

    def __init__(self, path: Path, timeout_seconds: float | None = 30.0) -> None:
        """Connect; `timeout_seconds` bounds every single wait. Raises TransientError `local.unreachable`."""
        self._path = path
        self._socket = _connect(path, timeout_seconds)
        self._received = bytearray()  # and not asked for yet
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def call(self, op: str, body: bytes = b"", **fields: Any) -> Frame:
        """Send a request and return its answer; raise the error that it names."""
        self.send({"op": op, **fields}, body)
        return self.receive()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send one frame. Raises TransientError: the server did not get all of it."""
        try:
            self._socket.sendall(encode_frame(header, body))
        except OSError as error:
            raise _unreachable(self._path, error) from error

    def receive(self) -> Frame:
        """Return the next frame, blocking; raise the error that it names, or InDoubtError when cut off."""
        lengths = self._read(LENGTHS.size)
        header_size, body_size = parse_lengths(lengths)
        frame = Frame(parse_header(self._read(header_size)), self._read(body_size))
        if frame.header.get("ok") is False:
            raise parse_error(frame.header.get("error"))
        return frame

    def stream(self, op: str, **fields: Any) -> Iterator[Frame]:
        """Send a request that turns the connection into a stream; yield its frames until closed."""
        self.send({"op": op, **fields})
        while True:
            yield self.receive()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def is_readable(self, timeout_seconds: float | None) -> bool:
        """Whether something comes, or the end, within so long."""
        if self._received:
            return True
        return bool(self._poll.poll(None if timeout_seconds is None else timeout_seconds * 1000))

    def _read(self, size: int) -> bytes:
        """Return so many bytes; a frame that came in one piece is received by one call."""
        received = self._received
        while len(received) < size:
            try:
                data = self._socket.recv(min(max(size - len(received), _LEAST_BYTES), _CHUNK_BYTES))
            except OSError as error:
                raise _cut_off(self._path, str(error)) from error
            if not data:
                raise _cut_off(self._path, "closed by the other side")
            received += data
        with memoryview(received) as view:
            taken = bytes(view[:size])
        del received[:size]
        return taken


def parse_error(fields: Any) -> FleetError:
    """Return the error that an answer's `error` object names; InvariantError when it names none."""
    if not isinstance(fields, dict):
        return InvariantError("local.bad-error", "an error answer without its fields")
    kind = getattr(errors, str(fields.get("class")), None)
    if not (isinstance(kind, type) and issubclass(kind, FleetError)):
        kind = InvariantError
    context = {str(name): value for name, value in dict(fields.get("context") or {}).items()}
    reserved = {"code", "message", "hint", "status"}
    return kind(
        str(fields.get("code", "")),
        str(fields.get("message", "")),
        hint=str(fields.get("hint", "")),
        **{name: value for name, value in context.items() if name not in reserved},
    )


def _connect(path: Path, timeout_seconds: float | None) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout_seconds)
    try:
        connection.connect(str(path))
        _check_peer(connection)
    except OSError as error:
        with suppress(OSError):
            connection.close()
        raise _unreachable(path, error) from error
    return connection


def _check_peer(connection: socket.socket) -> None:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _pid, uid, _gid = _PEER_CREDENTIALS.unpack(data)
    if uid not in {0, os.geteuid()}:
        raise PermissionError(f"the socket belongs to account {uid}")


def _unreachable(path: Path, error: Exception) -> TransientError:
    return TransientError(
        "local.unreachable", "the fleet's local service does not answer", socket=path.name, reason=str(error)
    )


def _cut_off(path: Path, reason: str) -> InDoubtError:
    return InDoubtError(
        "local.cut-off", "the connection broke before the answer", socket=path.name, reason=reason
    )
