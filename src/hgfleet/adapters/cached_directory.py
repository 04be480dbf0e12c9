"""A directory that goes on knowing accounts for a while when it cannot be asked (A1).

Any Directory, decorated: each answer is asked for anew, in bounded time; only when that fails with
`directory.unreachable` is an earlier answer given, if it is younger than the bound.

Promises: a revocation takes effect at once while the directory answers, and within the bound always; "no such
account" is only ever the directory's own answer. An outage is logged when it begins and when it ends, with
how many look-ups were answered and refused meanwhile.
Does not: answer from memory to be faster, or disable anything.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTimeError
from dataclasses import dataclass

from hgfleet.adapters.account_cache import AccountCache
from hgfleet.adapters.directory_status import DirectoryStatus
from hgfleet.errors import TransientError
from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account, Directory
from hgfleet.runtime import clock

MAX_REMEMBERED = 10_000
THREADS = 16
UNREACHABLE = "directory.unreachable"
TOLD_SECONDS = 5.0  # how often an outage's counts are told
_REWRITTEN_AFTER = 0.1  # of the bound: an unchanged account's age on disk is off by no more
_log = logging.getLogger("hgfleet.directory")


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How long a look-up may take, and how old an answer may be that carries over an outage."""

    lookup_seconds: float = 5.0
    outage_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class _Answer:
    account: Account
    at: float  # boot time
    written_at: float  # boot time; when it was last put on disk


class CachedDirectory:
    """The Directory port on another one; safe for several threads."""

    def __init__(
        self,
        directory: Directory,
        limits: CacheLimits | None = None,
        cache: AccountCache | None = None,
        tell: Callable[[DirectoryStatus], None] | None = None,
    ) -> None:
        """`cache` lets answers outlive this process; `tell` is called with what happens, for metrics."""
        self._directory = directory
        self._limits = limits or CacheLimits()
        self._cache = cache
        self._answers: OrderedDict[AccountName, _Answer] = OrderedDict()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="directory")
        self._outage_began: float | None = None
        self._answered = self._refused = 0
        self._tell = tell or _tell_nobody
        self._told_at = clock.boottime()
        self._tell(self.status)
        if cache is not None:
            cache.forget_before(clock.now() - self._limits.outage_seconds)

    def account(self, name: AccountName) -> Account | None:
        asked_at = clock.boottime()
        try:
            found = self._ask(name)
        except TransientError as error:
            if error.code != UNREACHABLE:
                raise
            return self._recall(name, error)
        self._remember(name, found, asked_at)
        return found

    def touch(self, name: AccountName) -> None:
        self._directory.touch(name)

    @property
    def status(self) -> DirectoryStatus:
        """Return what happened since the start."""
        return DirectoryStatus(self._outage_began is None, self._answered, self._refused)

    def _ask(self, name: AccountName) -> Account | None:
        """Ask the directory in bounded time, whatever it does to its own time-outs."""
        future = self._threads.submit(self._directory.account, name)
        try:
            return future.result(self._limits.lookup_seconds)
        except NotInTimeError as error:
            future.cancel()
            raise TransientError(
                UNREACHABLE, "the directory of accounts does not answer", hint="try again soon"
            ) from error

    # ---- answers

    def _remember(self, name: AccountName, found: Account | None, asked_at: float) -> None:
        with self._lock:
            self._note_reachable()
            before = self._answers.pop(name, None)
            must_write = self._must_write(before, found, asked_at)
            if found is not None:
                written_at = before.written_at if before and not must_write else asked_at
                self._answers[name] = _Answer(found, asked_at, written_at)
                if len(self._answers) > MAX_REMEMBERED:
                    self._answers.popitem(last=False)
        if self._cache is not None and found is None:
            self._cache.forget(name)
        elif self._cache is not None and found is not None and must_write:
            self._cache.store(found, clock.now() - (clock.boottime() - asked_at))

    def _must_write(self, before: _Answer | None, found: Account | None, asked_at: float) -> bool:
        if before is None or before.account != found:
            return True
        return asked_at - before.written_at > self._limits.outage_seconds * _REWRITTEN_AFTER

    def _recall(self, name: AccountName, error: TransientError) -> Account:
        """Return an earlier answer that is young enough, or raise the error."""
        account = self._from_memory(name) or self._from_disk(name)
        with self._lock:
            self._note_outage(error)
            self._answered += account is not None
            self._refused += account is None
            self._tell_now_and_then()
        if account is None:
            raise error
        _log.info("directory.answered-from-memory", extra={"account": name})
        return account

    def _from_memory(self, name: AccountName) -> Account | None:
        with self._lock:
            answer = self._answers.get(name)
        if answer is None or clock.boottime() - answer.at >= self._limits.outage_seconds:
            return None
        return answer.account

    def _from_disk(self, name: AccountName) -> Account | None:
        """Return what an earlier process knew; what claims to be from the future is not believed."""
        found = self._cache.recall(name) if self._cache is not None else None
        if found is None or not 0 <= clock.now() - found[0] < self._limits.outage_seconds:
            return None
        return found[1]

    # ---- outages

    def _note_outage(self, error: TransientError) -> None:
        if self._outage_began is None:
            self._outage_began = clock.boottime()
            self._told_at = 0.0
            _log.warning("directory.outage", extra={"reason": str(error), "hint": error.hint})

    def _note_reachable(self) -> None:
        if self._outage_began is None:
            return
        seconds, self._outage_began = clock.boottime() - self._outage_began, None
        extra = {"seconds": round(seconds), "answered": self._answered, "refused": self._refused}
        _log.info("directory.reachable", extra=extra)
        self._tell(self.status)

    def _tell_now_and_then(self) -> None:
        now = clock.boottime()
        if now - self._told_at >= TOLD_SECONDS:
            self._told_at = now
            self._tell(self.status)


def _tell_nobody(_status: DirectoryStatus) -> None:
    return
