"""Where hosts write down how far they are in the log, for standard lag tools.

Promises: what is committed for a host is what was committed last, whoever asks.
Does not: serve as a position to go on from; each copy has its own, in its own transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hgfleet.model.ids import HostName, Partition, Position


class ProgressBoard(Protocol):
    """Positions in pushdata per host; calls block."""

    def commit(self, host: HostName, positions: Mapping[Partition, Position]) -> None:
        """Write a host's positions down. Raises TransientError."""
        ...

    def committed(self) -> dict[HostName, dict[Partition, Position]]:
        """Return every host's positions. Raises TransientError."""
        ...

    def close(self) -> None:
        """Release everything; the instance is not used afterwards."""
        ...
