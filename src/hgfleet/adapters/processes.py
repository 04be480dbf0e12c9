"""Starts, watches and ends processes, for everything of hgfleet that needs one.

Promises: a program is started from an argument list, never through a shell; it leads a process group of its
own and, unless told otherwise, is killed when the process that started it ends in any way, kill -9 included;
whatever of its group outlives it is killed before its end is reported, so a restart never meets remains.
Does not: decide when to restart (the supervisor does) or read what a program prints.

The kernel ties the death signal to the *thread* that started the program: start long-lived programs from a
thread that lives as long as they shall. The program is started through a few lines of Python of our own,
which ask for the signal and then become the program: code between fork and exec is not safe with threads.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hgfleet.errors import ConfigError, TransientError

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
Stream = int | IO[bytes] | None  # None: the same as ours

_LAUNCH = """
import ctypes, os, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(sys.argv[2]), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: an argument list (the program by path or name), and what the process gets from us."""

    arguments: Sequence[str]
    environment: Mapping[str, str] | None = None  # None: the same as ours
    directory: Path | None = None
    stdin: Stream = DEVNULL
    stdout: Stream = None
    stderr: Stream = None
    descriptors: Sequence[int] = ()  # kept open in the child under the same numbers
    ends_with_us: bool = True


class Child:
    """A started program: the leader of its own process group."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        self.pid = popen.pid

    @property
    def stdin(self) -> IO[bytes]:
        """Our end of its standard input, when that is a PIPE."""
        assert self._popen.stdin is not None  # noqa: S101
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Our end of its standard output, when that is a PIPE."""
        assert self._popen.stdout is not None  # noqa: S101
        return self._popen.stdout

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the program has ended; valid until close()."""
        return self._pidfd

    def exit_status(self) -> int | None:
        """Return how it ended (a signal as 128 + n), None while it runs. Does not block."""
        if self._popen.returncode is None and self._has_ended():
            self._signal_group(signal.SIGKILL)
            self._popen.wait()
        code = self._popen.returncode
        if code is None:
            return None
        return code if code >= 0 else 128 - code

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Block until it has ended and return its exit status; None on time-out."""
        if self._popen.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(None if timeout_seconds is None else timeout_seconds * 1000)
        return self.exit_status()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the leader alone; nothing happens when it has ended."""
        if self.exit_status() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """Ask it to end: SIGTERM, and SIGCONT in case it is stopped."""
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)

    def kill(self) -> int:
        """Kill the whole group and return the leader's exit status."""
        if self.exit_status() is None:
            self._signal_group(signal.SIGKILL)
        status = self.wait()
        assert status is not None  # noqa: S101
        return status

    def stop(self, grace_seconds: float) -> int:
        """Ask it to end, kill its group after the grace; return its exit status."""
        self.terminate()
        status = self.wait(grace_seconds)
        return self.kill() if status is None else status

    def close(self) -> None:
        """Release our descriptors; the program must have ended."""
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                _close_quietly(pipe)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _has_ended(self) -> bool:
        """Whether it is a zombie by now; it stays one, so its number cannot be anybody else's yet."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nobody is left in it, or only zombies


def start(program: Program) -> Child:
    """Start the program.

    Raises ConfigError `process.missing` when there is no such program, TransientError `process.not-started`
    when the system has no room for it.
    """
    path = find_program(program.arguments[0])
    arguments = [str(path), *program.arguments[1:]]
    if program.ends_with_us:
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCH]
        arguments = [*launcher, str(os.getpid()), str(int(signal.SIGKILL)), *arguments]
    try:
        popen = subprocess.Popen(
            arguments,
            stdin=program.stdin,
            stdout=program.stdout,
            stderr=program.stderr,
            env=program.environment,
            cwd=program.directory,
            pass_fds=tuple(program.descriptors),
            process_group=0,
        )
    except OSError as error:
        raise TransientError(
            "process.not-started", "a process could not be started", reason=str(error)
        ) from error
    return Child(popen)


def find_program(name: str) -> Path:
    """Return the path of a program given by path or name; raise ConfigError `process.missing` otherwise."""
    found = shutil.which(name)
    if found is None:
        raise ConfigError(
            "process.missing", "program not found", hint="install it or put it on PATH", name=name
        )
    return Path(found).absolute()


@dataclass(frozen=True, slots=True)
class Finished:
    """How a short command ended, and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes


def run(program: Program, timeout_seconds: float, stdin: bytes = b"") -> Finished:
    """Run a short command to its end, collecting what it prints.

    Raises ConfigError `process.missing` or TransientError `process.timeout` (it is killed then).
    """
    path = find_program(program.arguments[0])
    try:
        done = subprocess.run(
            [str(path), *program.arguments[1:]],
            input=stdin,
            capture_output=True,
            env=program.environment,
            cwd=program.directory,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(
            "process.timeout", "a command took too long", command=path.name, timeout_seconds=timeout_seconds
        ) from error
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Finished(status, done.stdout, done.stderr)


def _close_quietly(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return  # it ended before it read everything
