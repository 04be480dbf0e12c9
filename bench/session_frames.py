"""The frames of the session server's socket, for what stands in its place during a measurement."""

from __future__ import annotations

import os
import socket
from typing import Any

from hgfleet.model.frames import FrameDecoder, encode_frame

_RECEIVE_BYTES = 65536
_DESCRIPTORS = 3


def receive_request(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the first frame's header and its descriptors, the caller's now; None when nothing was asked."""
    decoder, descriptors = FrameDecoder(), list[int]()
    while True:
        data, received, _, _ = socket.recv_fds(connection, _RECEIVE_BYTES, _DESCRIPTORS)
        descriptors += received
        for frame in decoder.feed(data):
            return frame.header, descriptors
        if not data:
            for descriptor in descriptors:
                os.close(descriptor)
            return None


def send_request(connection: socket.socket, header: dict[str, Any], descriptors: list[int]) -> None:
    """Send a frame whose first byte carries descriptors; they stay the caller's."""
    data = encode_frame(header)
    sent = socket.send_fds(connection, [data], descriptors)
    connection.sendall(data[sent:])


def send_header(connection: socket.socket, header: dict[str, Any]) -> None:
    """Send an answer; nobody may be left to read it."""
    try:
        connection.sendall(encode_frame(header))
    except (BrokenPipeError, ConnectionResetError):
        return
