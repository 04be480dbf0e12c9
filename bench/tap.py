"""Stands between the SSH front and a session server and times whose turn it is: the server's or the client's.

Run as a program: `python -m bench.tap SOCKET UPSTREAM JOURNAL`; one JSON line per session goes to JOURNAL.

The server's share of a session is the sum of its turns. The first lasts from the request to the hello;
each later one from the last byte of what the client asked to the last byte of the answer. What the client
thinks in between, and how either side ends afterwards, is not counted.

Promises: the same relaying for whatever stands upstream, so a ratio of two shares compares the servers.
Does not: understand Mercurial's protocol.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.session_frames import receive_request, send_header, send_request
from hgfleet.model.frames import FrameDecoder

_CHUNK_BYTES = 256 * 1024


@dataclass(slots=True)
class Turns:
    """Adds up the server's turns of one session."""

    asked_at: float
    answered_at: float | None = None
    seconds: list[float] = field(default_factory=list)
    has_said_hello: bool = False

    def client_spoke(self, now: float) -> None:
        """Note bytes from the client: they end the server's turn and begin its next one."""
        if self.answered_at is not None:
            self._end_turn()
        if self.has_said_hello:
            self.asked_at = now

    def server_spoke(self, now: float) -> None:
        """Note bytes from the server: its turn lasts at least until here."""
        self.has_said_hello = True
        self.answered_at = now

    def finish(self) -> list[float]:
        """Return the length of each turn."""
        if self.answered_at is not None:
            self._end_turn()
        return self.seconds

    def _end_turn(self) -> None:
        assert self.answered_at is not None
        self.seconds.append(self.answered_at - self.asked_at)
        self.answered_at = None


class Session:
    """One session that passes through."""

    def __init__(
        self, front: socket.socket, upstream: Path, header: dict[str, Any], streams: list[int]
    ) -> None:
        self._started_at = time.perf_counter()
        self._turns = Turns(self._started_at)
        self._front, self._header = front, header
        self._client_in, self._client_out, self._client_err = streams
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(upstream))
        self._selector = selectors.DefaultSelector()
        self._open_outputs = 2

    def run(self) -> dict[str, Any]:
        """Relay to the end; return what was timed."""
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        send_request(self._server, self._header, [theirs_in, theirs_out, theirs_err])
        for descriptor in (theirs_in, theirs_out, theirs_err):
            os.close(descriptor)
        self._watch(self._client_in, lambda: self._from_client(ours_in))
        self._watch(ours_out, lambda: self._from_server(ours_out, self._client_out))
        self._watch(ours_err, lambda: self._from_server(ours_err, self._client_err))
        exit_status = self._relay()
        turns = self._turns.finish()
        send_header(self._front, {"ok": True, "exit": exit_status})
        return {"turns": turns, "session": time.perf_counter() - self._started_at, "exit": exit_status}

    def _watch(self, descriptor: int, action: Any) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def _relay(self) -> int:
        decoder, exit_status = FrameDecoder(), -1

        def from_upstream() -> None:
            nonlocal exit_status
            data = self._server.recv(_CHUNK_BYTES)
            for frame in decoder.feed(data):
                exit_status = int(frame.header.get("exit", exit_status))
                if "exit" not in frame.header:
                    send_header(self._front, frame.header)
            if not data:
                self._selector.unregister(self._server)

        self._watch(self._server.fileno(), from_upstream)
        while self._open_outputs or self._server.fileno() in self._selector.get_map():
            for key, _ in self._selector.select():
                key.data()
        return exit_status

    def _from_client(self, server_in: int) -> None:
        data = os.read(self._client_in, _CHUNK_BYTES)
        if not data:
            self._selector.unregister(self._client_in)
            os.close(server_in)
            return
        self._turns.client_spoke(time.perf_counter())
        _write_all(server_in, data)

    def _from_server(self, source: int, target: int) -> None:
        data = os.read(source, _CHUNK_BYTES)
        if data:
            self._turns.server_spoke(time.perf_counter())
            _write_all(target, data)
            return
        self._selector.unregister(source)
        os.close(source)
        os.close(target)
        self._open_outputs -= 1


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:
        return


def serve(path: Path, upstream: Path, journal: Path) -> None:
    """Relay sessions until killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    lock = threading.Lock()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, upstream, journal, lock), daemon=True).start()


def _answer(connection: socket.socket, upstream: Path, journal: Path, lock: threading.Lock) -> None:
    with connection:
        request = receive_request(connection)
        if request is None:
            return
        header, streams = request
        if len(streams) != 3:
            send_header(connection, {"ok": True, "sessions": []})
            return
        for stream in streams:
            os.set_blocking(stream, True)
        timed = Session(connection, upstream, header, streams).run()
        with lock, journal.open("a") as file:
            file.write(json.dumps(timed) + "\n")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
