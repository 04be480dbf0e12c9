"""The SSH front on OpenSSH: sshd authenticates and encrypts, this process says who and what may.

sshd asks twice for each login through a program of its own (ssh/sshd_client.py): whether an offered key opens
the account, and then, as the forced command of that key, for the session itself, with the session's own
descriptors. Those go on to the session server, so no byte of a session passes through here.

Promises: those of ports.ssh_front, as far as they are not sshd's configuration (adapters.sshd_config). A
session whose program or client goes away is hung up; the client's output has ended before its exit status.
Does not: listen on the network, or start sshd.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgfleet.adapters.accepting import Acceptor
from hgfleet.adapters.openssh_socket import (
    MAX_ANSWER_BYTES,
    Guest,
    Packet,
    close_all,
    listen_for_programs,
    peer_user,
)
from hgfleet.adapters.sshd_config import authorized_key
from hgfleet.errors import PoisonError, RejectedError, TransientError
from hgfleet.model.client_line import client_line
from hgfleet.model.ids import parse_account_name
from hgfleet.ports.ssh_front import ON_BEHALF_VARIABLE, Reception, Visit

_INTERNAL_ERROR = 70
_HARD_LIMIT = 2  # times the limit: who comes in between is told to come back, beyond it nobody is heard
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class OpenSshOptions:
    """Where sshd's programs ask, and what their forced command is."""

    gate_socket: Path
    keys_socket: Path
    gate_command: tuple[str, ...]  # to which account and fingerprint are added
    keys_users: frozenset[int] = frozenset()  # who may look keys up, besides our own user and root
    keys_group: int | None = None  # owns the keys socket, so that those users get at it
    max_connections: int = 200


class OpenSshFront:
    """The two listening sockets and the visits that came through them."""

    def __init__(self, options: OpenSshOptions, reception: Reception) -> None:
        self._options = options
        self._reception = reception
        self._acceptors: list[Acceptor] = []
        self._look_ups: set[asyncio.Task[None]] = set()
        self._visits: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; there is no port to return. Raises ConfigError when that is not possible."""
        options = self._options
        own = frozenset({0, os.getuid()})
        self._listen(options.gate_socket, None, self._task_maker(self._visits, self._receive, own))
        askers = self._task_maker(self._look_ups, self._look_up, own | options.keys_users)
        self._listen(options.keys_socket, options.keys_group, askers)
        return 0

    async def stop(self, grace_seconds: float) -> None:
        """Take no new visits, let the open ones end, then hang up on what is left."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._visits:
            await asyncio.wait(set(self._visits), timeout=grace_seconds)
        left = [*self._visits, *self._look_ups]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _listen(self, path: Path, group: int | None, accepted: Callable[[socket.socket], None]) -> None:
        self._acceptors.append(Acceptor(listen_for_programs(path, group), accepted))

    def _task_maker(
        self,
        tasks: set[asyncio.Task[None]],
        serve: Callable[[Guest], Coroutine[Any, Any, None]],
        users: frozenset[int],
    ) -> Callable[[socket.socket], None]:
        def accepted(connection: socket.socket) -> None:
            if (
                peer_user(connection) not in users
                or len(tasks) >= _HARD_LIMIT * self._options.max_connections
            ):
                _log.warning("ssh.program-refused", extra={"user": peer_user(connection)})
                connection.close()
                return
            task = asyncio.get_running_loop().create_task(serve(Guest(connection)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return accepted

    async def _look_up(self, guest: Guest) -> None:
        """Answer whether a key opens an account; the outermost frame of a look-up."""
        try:
            packet = await guest.receive(descriptor_count=0)
            guest.answer(await self._keys_answer(packet))
        except (PoisonError, OSError, TimeoutError) as error:
            _note_failure(error)
        except Exception:
            _log.exception("ssh.look-up-failed")
        finally:
            guest.close()

    async def _keys_answer(self, packet: Packet) -> bytes:
        if len(packet.fields) != 3:
            raise PoisonError("packet.damaged", "not a request of sshd's programs")
        name, key_type, key = packet.fields
        try:
            account = await self._reception.account(parse_account_name(name))
        except RejectedError:
            return b"+"
        except TransientError as error:
            _log.warning(
                "ssh.login-unavailable", extra={"account": name, "code": error.code, "reason": str(error)}
            )
            return b"?"
        offered = key_data(key)
        if account is None or not offered or offered not in map(key_data, map(_base64_part, account.keys)):
            return b"+"
        command = (*self._options.gate_command, account.name, fingerprint(offered))
        return b"+" + authorized_key(command, key_type, key).encode()

    async def _receive(self, guest: Guest) -> None:
        """Serve one visit."""
        try:
            packet = await guest.receive(descriptor_count=3)
        except (PoisonError, OSError, TimeoutError) as error:
            _note_failure(error)
            guest.close()
            return
        streams = HandedStreams(packet.descriptors, guest)
        try:
            status = await self._serve(packet, streams)
            streams.close()
            guest.answer(streams.format_answer(status))
        finally:  # without an answer the gate tells its client that it can't know how this went
            streams.close()
            guest.close()

    async def _serve(self, packet: Packet, streams: HandedStreams) -> int:
        """Return the exit status; the outermost frame of a session."""
        if len(self._visits) > self._options.max_connections:
            full = TransientError("sessions.full", "too many sessions at once", hint="try again in a minute")
            streams.tell(client_line(full))
            return full.exit_code
        try:
            return await self._reception.receive(parse_visit(packet), streams)
        except Exception:
            _log.exception("ssh.visit-failed")
            streams.tell("abort: internal error")
            return _INTERNAL_ERROR


@dataclass(slots=True)
class HandedStreams:
    """The client's end of a visit: its own descriptors, and texts that its program writes at the end."""

    descriptors: tuple[int, ...]
    guest: Guest
    output: list[str] = field(default_factory=list)
    error: list[str] = field(default_factory=list)

    @property
    def are_clients_own(self) -> bool:
        return True

    def tell(self, line: str) -> None:
        self.error.append(f"{line}\n")

    def show(self, text: str) -> None:
        self.output.append(text)

    def open_descriptors(self) -> tuple[int, int, int]:
        first, second, third = self.descriptors
        self.descriptors = ()
        return first, second, third

    async def wait_hung_up(self) -> None:
        await self.guest.wait_gone()

    def close(self) -> None:
        """Let go of descriptors that nobody took: sshd waits until the last one is closed."""
        close_all(self.descriptors)
        self.descriptors = ()

    def format_answer(self, status: int) -> bytes:
        """Return the packet that ends the visit."""
        texts = ["".join(text).replace("\0", "?") for text in (self.output, self.error)]
        return "\0".join([str(status), *texts]).encode("utf-8", "replace")[:MAX_ANSWER_BYTES]


def _note_failure(error: Exception) -> None:
    """Log what no program of ours does; that one is gone before it asked is nobody's concern."""
    if not isinstance(error, ConnectionError):
        _log.warning("ssh.program-failed", extra={"reason": str(error) or type(error).__name__})


def parse_visit(packet: Packet) -> Visit:
    """Return the visit that the gate's packet describes; raise PoisonError."""
    if len(packet.fields) != 5:
        raise PoisonError("packet.damaged", "not a request of sshd's programs")
    account, key, address, person, command = packet.fields
    variables = {ON_BEHALF_VARIABLE: person} if person else {}
    return Visit(account, address, command or None, variables, key_fingerprint=key)


def key_data(text: str) -> bytes:
    """Return a key's bytes from its base64 text, none for what is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def fingerprint(data: bytes) -> str:
    """Return a key's fingerprint as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _base64_part(line: str) -> str:
    return line.split(" ")[1] if " " in line else ""
