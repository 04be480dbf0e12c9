"""The bytes of one SSH session between AsyncSSH's channel and the pipes of a session worker.

AsyncSSH decrypts in this process, so every byte passes through here: pipes with our end non-blocking, read
into the channel only while it takes more, and the client slowed down while the worker's input is full.

Promises: nothing is lost at the end: `wait_drained()` returns when everything that the worker wrote is in the
channel, and the channel sends what it holds before the exit status. At most a few hundred kilobytes are held
per direction.
Does not: start workers or decide the exit status.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from contextlib import suppress
from typing import Any

import asyncssh

PIPE_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024
HIGH_WATER_BYTES = 512 * 1024
LOW_WATER_BYTES = 128 * 1024


class ChannelStreams:
    """The client's end of one session; the session object passes on what the channel tells it."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._hung_up = asyncio.Event()
        self._inlet = _Inlet(channel, self._loop)
        self._outlets: list[_Outlet] = []
        channel.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)

    # ---- for whoever serves the visit

    @property
    def are_clients_own(self) -> bool:
        return False

    def tell(self, line: str) -> None:
        self._write(line.encode() + b"\n", asyncssh.EXTENDED_DATA_STDERR)

    def show(self, text: str) -> None:
        self._write(text.encode(), None)

    def open_descriptors(self) -> tuple[int, int, int]:
        worker_input, our_output = _pipe()
        os.set_blocking(our_output, False)
        self._inlet.connect(our_output)
        return worker_input, self._open_outlet(None), self._open_outlet(asyncssh.EXTENDED_DATA_STDERR)

    async def wait_hung_up(self) -> None:
        await self._hung_up.wait()

    async def wait_drained(self, timeout_seconds: float) -> None:
        """Return when the worker's output has ended and is in the channel, or the time is over.

        Time can only run out when something the worker left behind still holds its output open.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                for outlet in self._outlets:
                    await outlet.ended.wait()

    # ---- from the channel

    def data_received(self, data: bytes) -> None:
        """Pass the client's data on."""
        self._inlet.write(data)

    def eof_received(self) -> None:
        """Note that the client has no more to say."""
        self._inlet.finish()

    def pause_writing(self) -> None:
        """Stop reading: the channel is full."""
        for outlet in self._outlets:
            outlet.pause()

    def resume_writing(self) -> None:
        """Go on: the channel takes more."""
        for outlet in self._outlets:
            outlet.resume()

    def close(self) -> None:
        """Let go of everything: the client is gone, or the session over."""
        self._hung_up.set()
        self._inlet.close()
        for outlet in self._outlets:
            outlet.close()

    def _open_outlet(self, datatype: int | None) -> int:
        our_input, worker_output = _pipe()
        os.set_blocking(our_input, False)
        self._outlets.append(_Outlet(self._channel, self._loop, our_input, datatype))
        return worker_output

    def _write(self, data: bytes, datatype: int | None) -> None:
        with suppress(OSError):  # the client is gone
            self._channel.write(data, datatype)


class _Inlet:
    """From the channel to the worker's standard input."""

    def __init__(self, channel: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._descriptor = -1
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_finished = False
        self._is_paused = False

    def connect(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._flush()

    def write(self, data: bytes) -> None:
        if self._is_finished:
            return
        self._chunks.append(data)
        self._held_bytes += len(data)
        self._flush()

    def finish(self) -> None:
        self._is_finished = True
        self._flush()

    def close(self) -> None:
        self._is_finished = True
        self._chunks.clear()
        self._held_bytes = 0
        self._close_descriptor()

    def _flush(self) -> None:
        if self._descriptor >= 0:
            try:
                self._write_chunks()
            except OSError:  # the worker is gone or reads no more; the rest is thrown away
                self.close()
        if self._is_finished and not self._chunks:
            self._close_descriptor()
        self._steer_client()

    def _write_chunks(self) -> None:
        while self._chunks:
            try:
                written = os.write(self._descriptor, self._chunks[0])
            except BlockingIOError:
                self._loop.add_writer(self._descriptor, self._flush)
                return
            self._held_bytes -= written
            if written == len(self._chunks[0]):
                self._chunks.popleft()
            else:
                self._chunks[0] = self._chunks[0][written:]
        self._loop.remove_writer(self._descriptor)

    def _steer_client(self) -> None:
        if not self._is_paused and self._held_bytes > HIGH_WATER_BYTES:
            self._is_paused = True
            self._channel.pause_reading()
        elif self._is_paused and self._held_bytes <= LOW_WATER_BYTES:
            self._is_paused = False
            self._channel.resume_reading()

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._is_finished = True


class _Outlet:
    """From one of the worker's outputs to the channel."""

    def __init__(
        self, channel: Any, loop: asyncio.AbstractEventLoop, descriptor: int, datatype: int | None
    ) -> None:
        self.ended = asyncio.Event()
        self._channel = channel
        self._loop = loop
        self._descriptor = descriptor
        self._datatype = datatype
        self.resume()

    def pause(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self.ended.set()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        try:
            self._channel.write(data, self._datatype)
        except OSError:  # the client is gone; the worker will get SIGPIPE or be hung up
            self.close()


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):  # over the user's limit: the kernel's default size works too
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer
