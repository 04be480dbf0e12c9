"""What the web processes of one mirror need to be told.

Promises: frozen, complete, nothing read from elsewhere.
Does not: read configuration files (cli does).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters.location_files import LocationOptions


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """What the application answers with."""

    repositories: Path  # <RepoId>/current is the generation in use
    catalogue: Path  # catalogue.sqlite
    serving: Path  # serving.json
    demand: Path | None  # demand.sqlite: clones are counted there; None: nobody counts
    host: str  # this mirror's name
    base_url: str  # what clients use, without a slash at its end; the Host header is never believed
    ssh_url: str  # where to push, the same way; "" if unknown
    site_name: str = "hgfleet"
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For is believed
    locations: LocationOptions = LocationOptions()
    advertise_bundles: bool = True  # to clients that clone without them
    bundle_directories: tuple[tuple[str, Path], ...] = ()  # by store: what we serve ourselves
    clone_lane: Path | None = None  # the socket of the process that makes full clones; None: made here
    is_lane: bool = False  # this is that process: who asks has checked whether the mirror answers
    clone_places: int = 4  # how many of them at once, per worker
    cached_repositories: int = 500  # per worker
    cached_answers_bytes: int = 64 * 1024 * 1024  # per worker; 0: none


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How the workers listen."""

    site: SiteOptions
    address: str
    port: int
    certificate: Path
    key: Path
    workers: int = 2
    threads: int = 8  # a clone holds one all the time
    graceful_timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class CloneLaneOptions:
    """How the process listens that makes full clones for the workers."""

    site: SiteOptions
    socket: Path
    workers: int = 1
    threads: int = 8
    niceness: int = 10


@dataclass(frozen=True, slots=True)
class RedirectOptions:
    """How the plain port listens."""

    address: str
    port: int
    base_url: str  # where everything is sent; the Host header is never believed
