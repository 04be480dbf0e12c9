"""Accounts as the SSH front asks for them: off the event loop, in bounded time, over a short outage.

Promises: "no such account" only when the directory says so; when it can't be asked, an account seen less than
`outage_seconds` ago is answered from memory, so a revocation takes effect within that bound at the latest,
and at once while the directory answers (A1).
Does not: decide access.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from dataclasses import dataclass

from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import AccountName, parse_account_name
from hgfleet.ports.directory import Account, Directory
from hgfleet.runtime import clock

MAX_REMEMBERED = 10_000
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How long a look-up may take and how long an answer carries over an outage."""

    lookup_seconds: float = 5.0
    outage_seconds: float = 600.0


class Accounts:
    """The directory, asked through an executor's threads."""

    def __init__(self, directory: Directory, executor: Executor, limits: AccountLimits) -> None:
        self._directory = directory
        self._executor = executor
        self._limits = limits
        self._seen: dict[AccountName, tuple[float, Account]] = {}

    async def find(self, name: str) -> Account | None:
        """Return the account, None when there is none. Raises TransientError when it can't be known."""
        try:
            checked = parse_account_name(name)
        except RejectedError:
            return None
        try:
            account = await self._ask(checked)
        except TransientError as error:
            return self._remembered(checked, error)
        self._remember(checked, account)
        return account

    def touch(self, name: AccountName) -> None:
        """Have the directory note the use, some time soon."""
        self._executor.submit(self._directory.touch, name)

    async def _ask(self, name: AccountName) -> Account | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.lookup_seconds):
                return await loop.run_in_executor(self._executor, self._directory.account, name)
        except TimeoutError as error:
            raise TransientError(
                "directory.unreachable", "the directory of accounts does not answer"
            ) from error

    def _remember(self, name: AccountName, account: Account | None) -> None:
        self._seen.pop(name, None)
        if account is not None:
            self._seen[name] = (clock.boottime(), account)
            while len(self._seen) > MAX_REMEMBERED:
                del self._seen[next(iter(self._seen))]

    def _remembered(self, name: AccountName, error: TransientError) -> Account:
        at, account = self._seen.get(name, (0.0, None))
        if account is None or clock.boottime() - at > self._limits.outage_seconds:
            raise error
        _log.warning("directory.outage", extra={"account": name, "code": error.code, "reason": str(error)})
        return account
