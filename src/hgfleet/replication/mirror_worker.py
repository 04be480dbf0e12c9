"""The applier's end of one apply worker: a process that applies messages, asked over its pipes.

Promises: a request returns the worker's answer or raises the error that it names; a worker that died, spoke
nonsense or did not answer in time is killed, whole group, and the next request starts another.
Does not: choose what to apply, or know Mercurial (hgext.apply_worker does).
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import IO, Any

from hgfleet.adapters.local_client import parse_error
from hgfleet.adapters.processes import PIPE, Child, Program, start
from hgfleet.errors import FleetError, InDoubtError
from hgfleet.model.frames import Frame, FrameDecoder, encode_frame
from hgfleet.runtime import clock

_CHUNK_BYTES = 1024 * 1024


class ApplyWorker:
    """One long-lived worker. The thread that uses it must live as long as the worker shall."""

    def __init__(self, program: Program, answer_seconds: float) -> None:
        self._program = program
        self._answer_seconds = answer_seconds
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process in use, None before the first request and after a failure."""
        return self._child.pid if self._child is not None else None

    def request(self, op: str, body: bytes = b"", **fields: Any) -> Frame:
        """Ask and wait for the answer; start the process first when there is none.

        Raises what the worker answers; InDoubtError `worker.died` when it ended or hung: what was asked may
        have been done or not, and asking again is safe, as every operation of a worker is.
        """
        child = self._child or start(self._program)
        self._child = child
        try:
            frame = self._exchange(child, encode_frame({"op": op, **fields}, body))
        except (OSError, FleetError, EOFError) as error:
            raise self._died(error) from error
        if frame.header.get("ok") is not True:
            raise parse_error(frame.header.get("error"))
        return frame

    def start(self) -> None:
        """Start the process now, so that the first request does not wait for it."""
        self._child = self._child or start(self._program)

    def close(self) -> None:
        """Kill the process: whatever it was doing is done again by the next one."""
        if self._child is not None:
            self._child.kill()
            self._child.close()
            self._child = None

    def _exchange(self, child: Child, request: bytes) -> Frame:
        child.stdin.write(request)
        child.stdin.flush()
        deadline = clock.monotonic() + self._answer_seconds
        decoder = FrameDecoder()
        while True:
            for frame in decoder.feed(_read_some(child.stdout, deadline)):
                return frame

    def _died(self, error: BaseException) -> InDoubtError:
        status = None
        if self._child is not None:
            with suppress(OSError):
                status = self._child.wait(0)
            self.close()
        return InDoubtError(
            "worker.died", "an apply worker ended before its answer", status=status, reason=str(error)
        )


def _read_some(pipe: IO[bytes], deadline: float) -> bytes:
    """Read what there is, past the pipe object's own buffer: poll must know what is there."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(max(0.0, deadline - clock.monotonic()) * 1000):
        raise TimeoutError("no answer in time")
    data = os.read(pipe.fileno(), _CHUNK_BYTES)
    if not data:
        raise EOFError("closed its pipe")
    return data


def worker_program(arguments: tuple[str, ...], environment: dict[str, str]) -> Program:
    """Describe the process: both ends of its pipes are ours, what it says otherwise goes where ours goes."""
    return Program(arguments, environment=environment, stdin=PIPE, stdout=PIPE)
