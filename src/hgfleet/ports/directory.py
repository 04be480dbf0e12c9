"""The directory of accounts: SSH keys, groups, enabled or not.

Promises every adapter keeps (tests/contract/test_directory.py): an account that does not exist is None, an
error is TransientError `directory.unreachable`; the two are never mixed up (A1).
Does not: decide access.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hgfleet.model.ids import AccountName


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `keys` are OpenSSH public keys, "<type> <base64>", without comments."""

    name: AccountName
    is_enabled: bool
    groups: frozenset[str]
    keys: tuple[str, ...]


class Directory(Protocol):
    """Looks accounts up."""

    def account(self, name: AccountName) -> Account | None:
        """Return the account, None when there is none. Raises TransientError when it can't be known."""
        ...

    def touch(self, name: AccountName) -> None:
        """Record that the account was used today; never raises, never blocks for long."""
        ...
