"""A reception that a test steers, and a front that serves it from an event loop in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hgfleet.errors import TransientError
from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account
from hgfleet.ports.ssh_front import Streams, Visit

BIG_BYTES = 3_000_000
T = TypeVar("T")


@dataclass
class ScriptedReception:
    """Lets accounts in by their keys; the visit's command says what is done with it."""

    keys_by_account: dict[str, tuple[str, ...]] = field(default_factory=dict)
    is_unavailable: bool = False
    visits: list[Visit] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)

    async def account(self, name: str) -> Account | None:
        if self.is_unavailable:
            raise TransientError("directory.unreachable", "the directory of accounts does not answer")
        keys = self.keys_by_account.get(name)
        return None if keys is None else Account(AccountName(name), True, frozenset(), keys)

    async def receive(self, visit: Visit, streams: Streams) -> int:
        self.visits.append(visit)
        match visit.command:
            case "wait":
                await streams.wait_hung_up()
                self.hung_up.set()
                return 0
            case "big" | "echo":
                descriptors = streams.open_descriptors()
                return await asyncio.to_thread(_move_bytes, visit.command, descriptors)
            case "crash":
                raise RuntimeError("a defect")
        streams.show(f"shown: {visit.command}\n")
        streams.tell("told")
        return 3


def _move_bytes(command: str, descriptors: tuple[int, int, int]) -> int:
    source, target, error = descriptors
    try:
        if command == "echo":
            while data := os.read(source, 65536):
                _write(target, data)
        else:
            _write(target, b"x" * BIG_BYTES)
            _write(error, b"said at the end\n")
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return 7


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the loop."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(60)

    def stop(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()
