"""The local sockets on which sshd's two programs (ssh/sshd_client.py) ask the reception, and their packets.

Each program sends one packet and gets one back, on a SOCK_SEQPACKET connection; fields are joined by NUL:

    keys socket    account, key type, key                      -> "+" and the authorized_keys line or nothing,
                                                                  "?": it can't be known
    gate socket    account, fingerprint, client address,       -> exit status, text for standard output,
                   on behalf of whom, command;                    text for standard error
                   with descriptors 0, 1 and 2

Promises: a peer is spoken to only when its user may ask on that socket; descriptors of a packet that is not
taken are closed; a peer that sends nothing is dropped after a while.
Does not: know what the answers are (adapters.openssh_front does).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import ConfigError, PoisonError

PACKET_BYTES = 64 * 1024
REQUEST_SECONDS = 10.0
MAX_ANSWER_BYTES = 128 * 1024
_BACKLOG = 512
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class Packet:
    """What one of the programs asked; whoever takes the descriptors closes them."""

    fields: tuple[str, ...]
    descriptors: tuple[int, ...]


class Guest:
    """One connected program."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._readable = asyncio.Event()
        self._loop.add_reader(connection, self._note_readable)

    async def receive(self, descriptor_count: int) -> Packet:
        """Return the request. Raises PoisonError for anything else, TimeoutError, OSError when it is gone."""
        async with asyncio.timeout(REQUEST_SECONDS):
            await self._readable.wait()
        data, descriptors, flags, _ = socket.recv_fds(
            self._connection, PACKET_BYTES, 3, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            raise ConnectionResetError("nothing was asked")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) != descriptor_count:
            close_all(descriptors)
            raise PoisonError("packet.damaged", "not a request of sshd's programs")
        self._readable.clear()
        self._loop.add_reader(self._connection, self._note_readable)
        fields = data.decode("utf-8", "replace").split("\0")
        return Packet(tuple(fields), tuple(descriptors))

    async def wait_gone(self) -> None:
        """Return when the program is gone: it has nothing more to say."""
        await self._readable.wait()

    def answer(self, data: bytes) -> None:
        """Send the answer; nothing happens when the program is gone."""
        with suppress(OSError):
            self._connection.send(data)

    def close(self) -> None:
        """Hang up."""
        self._loop.remove_reader(self._connection)
        self._connection.close()

    def _note_readable(self) -> None:
        self._loop.remove_reader(self._connection)
        self._readable.set()


def listen_for_programs(path: Path, group: int | None = None) -> socket.socket:
    """Listen at a path for our own user or, where a group is given, for its members too."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            "ssh.socket", "cannot listen there for sshd's programs", path=str(path), reason=error.strerror
        ) from error
    finally:
        os.umask(mask)
    return listener


def peer_user(connection: socket.socket) -> int:
    """Return the user id of the process at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody took."""
    for descriptor in descriptors:
        os.close(descriptor)
