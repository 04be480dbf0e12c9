"""What the commit side tells its session: changes that are recorded, and how long an append may take.

A session worker serves one client and ends, so this is plain state of the process. In a process that is no
session (an apply worker, a command on the host) nobody listens.

Promises: while `append_deadline` runs, the session server ends this process past the deadline, whatever it
is stuck in, because it holds the repository's lock.
Does not: know under which identity the session writes (hgext.identity).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hgfleet.runtime import clock

GRACE_SECONDS = 5.0  # beyond the append deadline: the session should have given up by itself before

_DEADLINE = struct.Struct("d")
_RECORDED = struct.Struct("QQ")  # how many changes, and the last one's seq


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """One accepted change of this session; `push_id` and `nodes` are empty when it added no changesets."""

    seq: int
    push_id: int | None
    nodes: tuple[str, ...]  # 40-hex, in revision order


class SessionPage:
    """What a session says about itself, in memory shared with its server: no death loses it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def set_deadline(self, at: float) -> None:
        """Set a time of the monotonic clock; 0.0 means none."""
        _DEADLINE.pack_into(self._page, 0, at)

    def is_over(self, now: float) -> bool:
        """Tell whether a deadline was set and has passed."""
        at: float = _DEADLINE.unpack_from(self._page, 0)[0]
        return 0.0 < at < now

    def note_recorded(self, seq: int) -> None:
        """Count a change that the log accepted."""
        _RECORDED.pack_into(self._page, _DEADLINE.size, self.recorded[0] + 1, seq)

    @property
    def recorded(self) -> tuple[int, int]:
        """How many changes were accepted, and the seq of the last one."""
        count, seq = _RECORDED.unpack_from(self._page, _DEADLINE.size)
        return count, seq

    def close(self) -> None:
        """Give the memory back."""
        self._page.close()


_recorded: list[RecordedChange] = []
_put_off: dict[str, Callable[[], None]] = {}
_pages: list[SessionPage] = []
_conditions: list[Callable[[], None]] = []
_registers: list[Path] = []
_ACCOUNT_FILE = "account"


def watch(page: SessionPage) -> None:
    """Make `page` the one that this process writes."""
    _pages[:] = [page]


def prepare(register: Path) -> None:
    """Make this process's directory before anybody waits for it; introduce() makes it otherwise."""
    with suppress(OSError):
        _own(register).mkdir(parents=True, exist_ok=True)
        (_own(register) / _ACCOUNT_FILE).touch()


def introduce(register: Path, account: str) -> Path:
    """Tell the host's other sessions whom this process acts for; return a directory of its own.

    The session server removes the directory when the process has ended. Raises OSError.
    """
    _registers[:] = [register]
    own = _own(register)
    own.mkdir(parents=True, exist_ok=True)
    (own / _ACCOUNT_FILE).write_text(account)
    return own


def _own(register: Path) -> Path:
    return register / str(os.getpid())


def account_of(pid: str) -> str:
    """Return whom another session of this host acts for, "" when that is not known here."""
    for register in _registers:
        with suppress(OSError):
            return (register / pid / _ACCOUNT_FILE).read_text()
    return ""


def require_before_append(condition: Callable[[], None]) -> None:
    """Have `condition` asked before every change is handed over; it raises FleetError to refuse."""
    _conditions[:] = [condition]


def check_before_append() -> None:
    """Raise FleetError when the session may not write any more; nothing is asked where there is none."""
    for condition in _conditions:
        condition()


def record(change: RecordedChange) -> None:
    """Note a change that the log accepted and the transaction committed."""
    _recorded.append(change)
    for page in _pages:
        page.note_recorded(change.seq)


def take_recorded() -> list[RecordedChange]:
    """Return what was recorded since the last call."""
    taken = list(_recorded)
    _recorded.clear()
    return taken


def put_off(name: str, work: Callable[[], None]) -> bool:
    """Do something that nobody waits for when the session has ended; False where there is no session.

    The last work of a name counts. A session that is killed does none.
    """
    if _pages:
        _put_off[name] = work
    return bool(_pages)


def do_what_was_put_off() -> None:
    """Do it; what one raises keeps no other from being done."""
    with ExitStack() as stack:
        for work in _put_off.values():
            stack.callback(work)
        _put_off.clear()


@contextmanager
def append_deadline(seconds: float) -> Iterator[None]:
    """Let the session server end this session when the block takes longer than `seconds`."""
    for page in _pages:
        page.set_deadline(clock.monotonic() + seconds)
    try:
        yield
    finally:
        for page in _pages:
            page.set_deadline(0.0)
