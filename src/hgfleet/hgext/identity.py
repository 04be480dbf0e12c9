"""Who is behind what this process writes.

The session worker says so once, after its fork and before it serves; without that, the writer is an
administrator who runs `hg` on the host.

Promises: one identity per process at a time; a host's own can never be mistaken for an account, whose names
have no colon.
Does not: decide access.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_HOST_PREFIX = "host:"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who, in which groups, under which trace id."""

    name: str  # the account, or `host:<name>`
    pusher: str  # what the pushlog shows: the account, or `host:<name>/<user of the system>`
    groups: frozenset[str] = frozenset()
    trace: str = ""

    @property
    def is_host(self) -> bool:
        """Whether an administrator of the host acts, whom no repository's settings bind."""
        return self.name.startswith(_HOST_PREFIX)


_assumed: list[Identity] = []


def assume(account: str, groups: frozenset[str], trace: str, *, pusher: str = "") -> None:
    """Make the account the identity of everything that this process writes from now on.

    `pusher` is whom a service account pushes for; the account itself without one.
    """
    _assumed[:] = [Identity(account, pusher or account, groups, trace)]


def current(ui: Any, host: str) -> Identity:
    """Return the assumed identity, or the host's own."""
    if _assumed:
        return _assumed[0]
    from mercurial.utils import procutil

    user = (procutil.getuser() or b"unknown").decode("utf-8", "replace")
    return Identity(f"{_HOST_PREFIX}{host}", f"{_HOST_PREFIX}{host}/{user}")
