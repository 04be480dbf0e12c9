"""Where clients are, from the configuration and the providers' files of address ranges, which change.

Promises: a file that changed is read again within the interval, without a restart; one that is missing or
damaged is said once and leaves what its last good version said. A look-up never fails, and waits for nothing
but the first reading.
Does not: fetch files from providers; a timer of the host does (docs/operate/locations.md).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgfleet.errors import ConfigError
from hgfleet.model.bundle_manifest import Place
from hgfleet.model.locations import (
    LocationTable,
    Network,
    aws_networks,
    google_networks,
    listed_networks,
)
from hgfleet.runtime import clock

_READERS: dict[str, Callable[[Any, str], list[tuple[Network, Place]]]] = {
    "aws": aws_networks,
    "google": google_networks,
}
_Stamp = tuple[int, int, int]
_UNREAD: _Stamp = (-1, -1, -1)
_ABSENT: _Stamp = (0, 0, 0)
_log = logging.getLogger("hgfleet.locations")


@dataclass(frozen=True, slots=True)
class LocationOptions:
    """What the configuration says; of equal networks the first one counts, listed ones before files."""

    places: tuple[tuple[str, str, str], ...] = ()  # network, attribute and value of what lies there
    files: tuple[tuple[str, str, str], ...] = ()  # path, provider, attribute
    fast_networks: tuple[str, ...] = ()  # where a byte costs less than a second of computing
    interval_seconds: float = 60.0  # how often it is looked whether a file changed


class Locations:
    """The places of addresses; any thread may ask."""

    def __init__(self, options: LocationOptions) -> None:
        """Nothing is read before the first question."""
        self._options = options
        self._files = [_RangeFile(Path(path), *rest) for path, *rest in options.files]
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._table = LocationTable([])

    def find(self, address: str) -> Place:
        """Return the place of an address; ANYWHERE for one that no network contains, or that is none."""
        self._refresh()
        return self._table.find(address)

    def _refresh(self) -> None:
        """Look at the files if it is time; while one thread does, the others go on with what was known."""
        if not self._is_due() or not self._lock.acquire(blocking=self._looked_at is None):
            return
        try:
            if self._is_due():  # nobody else did while this thread waited
                changed = [file.read_again() for file in self._files]
                if any(changed) or self._looked_at is None:
                    self._table = LocationTable(self._networks())
                self._looked_at = clock.monotonic()
        finally:
            self._lock.release()

    def _is_due(self) -> bool:
        return (
            self._looked_at is None or clock.monotonic() >= self._looked_at + self._options.interval_seconds
        )

    def _networks(self) -> Iterator[tuple[Network, Place]]:
        for network, name, value in self._options.places:
            yield from listed_networks([network], Place(name, value))
        for file in self._files:
            yield from file.networks
        yield from listed_networks(self._options.fast_networks, Place(is_fast=True))


class _RangeFile:
    """One provider's file, and what its last good version said."""

    def __init__(self, path: Path, provider: str, attribute: str) -> None:
        self._path = path
        self._provider = provider
        self._attribute = attribute
        self._stamp = _UNREAD
        self.networks: list[tuple[Network, Place]] = []

    def read_again(self) -> bool:
        """Read the file if it is another one than before; tell whether it said something new."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self.networks = read_ranges(self._path, self._provider, self._attribute)
        except ConfigError as error:
            kept = len(self.networks)
            _log.warning(
                "locations.damaged", extra={"path": str(self._path), "reason": str(error), "kept": kept}
            )
            return False
        _log.info("locations.read", extra={"path": str(self._path), "networks": len(self.networks)})
        return True

    def _look(self) -> _Stamp:
        try:
            status = self._path.stat()
        except OSError:
            return _ABSENT
        return status.st_mtime_ns, status.st_size, status.st_ino


def read_ranges(path: Path, provider: str, attribute: str) -> list[tuple[Network, Place]]:
    """Read a provider's file. Raises ConfigError `locations.unreadable`, `locations.damaged`."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            "locations.unreadable",
            "a provider's file of address ranges cannot be read",
            path=str(path),
            reason=error.strerror or str(error),
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    networks = _READERS[provider](document, attribute)
    if not networks:
        raise _damaged(path, "it names no network")
    return networks


def _damaged(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        "locations.damaged",
        "not a provider's file of address ranges",
        hint="fetch it again from the provider",
        path=str(path),
        reason=reason,
    )
