"""An SSH server as the gate needs it: it authenticates, and hands over one visit per session.

Promises every adapter keeps: `receive` is called only for an account that proved one of its keys; a pseudo
terminal, forwarding, subsystems and the client's environment are refused, but for the variables named in
PASSED_VARIABLES; what `receive` and its descriptors wrote reaches the client before the exit status.
Does not: decide anything about an account beyond its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hgfleet.ports.directory import Account

ON_BEHALF_VARIABLE = "AUTOLAND_REQUEST_USER"
PASSED_VARIABLES = frozenset({ON_BEHALF_VARIABLE})


@dataclass(frozen=True, slots=True)
class Visit:
    """One session that a client asks for."""

    account: str
    client_address: str
    command: str | None  # None: no command was asked for
    variables: Mapping[str, str] = field(default_factory=dict)
    key_fingerprint: str = ""  # of the key that the account proved, "SHA256:…"


class SshFront(Protocol):
    """A way in: what listens, and hands visits to the reception that it was made with."""

    async def start(self) -> int:
        """Listen; return the TCP port, 0 when it has none. Raises ConfigError when that is not possible."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Take nobody new, let the visits end, then close what is left."""
        ...


class Streams(Protocol):
    """The client's end of a visit."""

    @property
    def are_clients_own(self) -> bool:
        """Whether the descriptors are the connection's own: their last holder alone can end the visit."""
        ...

    def tell(self, line: str) -> None:
        """Write a line to the client's standard error."""
        ...

    def show(self, text: str) -> None:
        """Write text to the client's standard output."""
        ...

    def open_descriptors(self) -> tuple[int, int, int]:
        """Return descriptors that lead to the client's input, output and error; the caller closes them."""
        ...

    async def wait_hung_up(self) -> None:
        """Return when the client is gone."""
        ...


class Reception(Protocol):
    """What an SSH server asks and whom it hands visits to."""

    async def account(self, name: str) -> Account | None:
        """Return the account that wants to log in. Raises TransientError when it can't be known."""
        ...

    async def receive(self, visit: Visit, streams: Streams) -> int:
        """Do what the visitor wants; return the exit status."""
        ...
