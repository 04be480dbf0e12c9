"""Accounts as the SSH front asks for them: off the event loop.

Promises: what is no account's name is nobody; "no such account" only when the directory says so (A1).
Does not: decide access, or bound how long a look-up takes and how long an answer carries over an outage (the
directory it is given does).
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from hgfleet.errors import RejectedError
from hgfleet.model.ids import AccountName, parse_account_name
from hgfleet.ports.directory import Account, Directory


class Accounts:
    """The directory, asked through an executor's threads."""

    def __init__(self, directory: Directory, executor: Executor) -> None:
        self._directory = directory
        self._executor = executor

    async def find(self, name: str) -> Account | None:
        """Return the account, None when there is none. Raises TransientError when it can't be known."""
        try:
            checked = parse_account_name(name)
        except RejectedError:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._directory.account, checked)

    def touch(self, name: AccountName) -> None:
        """Have the directory note the use, some time soon."""
        self._executor.submit(self._directory.touch, name)
