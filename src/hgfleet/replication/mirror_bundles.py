"""Keeps what a mirror offers of clone bundles level with the manifests in force.

A thread of the applier's process with a connection of its own: nobody waits for an offer. It compares the
digests that the log agent tells with those of its files, so what it missed it finds again.

Promises: a new manifest is offered from when this mirror exposes its state, until then the one before it; a
repository without one, disabled or deleted, offers nothing; killed at any point, the next run goes on.
Does not: check that bundles are there, expose, or need anything of the applier beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from hgfleet.adapters.agent_bundles import BundleClient, BundleDigests, BundleEvent
from hgfleet.adapters.bundle_offers import NAME, OfferedManifest, read_offers, write_offers
from hgfleet.errors import FleetError
from hgfleet.model.bundle_state import InForce
from hgfleet.model.ids import NO_DIGEST, Digest, RepoId, parse_repo_id
from hgfleet.runtime import clock
from hgfleet.runtime.retry import Backoff

LOOK_SECONDS = 0.5  # how late a copy that has just been made is noticed
KEPT_MANIFESTS = 2
_log = structlog.get_logger()


class BundleOffers(threading.Thread):
    """The thread that writes them."""

    def __init__(self, repositories: Path, agent_socket: Path, stop: threading.Event) -> None:
        super().__init__(name="bundle-offers", daemon=True)
        self._repositories = repositories
        self._agent_socket = agent_socket
        self._stop_event = stop
        self._due: dict[RepoId, Digest] = {}  # what is to be written, as soon as there is a copy

    def run(self) -> None:
        """Follow and write until told to stop."""
        backoff = Backoff(0.05, 1.0)
        while not self._stop_event.is_set():
            try:
                self._follow(backoff)
            except (FleetError, OSError) as error:
                _log.info("bundles.not-followed", reason=str(error))
                clock.sleep(backoff.next_pause())

    def _follow(self, backoff: Backoff) -> None:
        with BundleClient(self._agent_socket) as client, client.bundles_follow() as events:
            while not self._stop_event.is_set():
                event = events.next_event(LOOK_SECONDS)
                if event is not None:
                    backoff.reset()
                    self._take(event)
                self._write_due(client)

    def _take(self, event: BundleEvent) -> None:
        if isinstance(event, BundleDigests):
            stale = dict.fromkeys(self._offering(), NO_DIGEST)
            self._due = stale | dict(event.digests)
        else:
            self._due[event.repository] = event.digest

    def _offering(self) -> list[RepoId]:
        return [parse_repo_id(path.parent.name) for path in self._repositories.glob(f"*/{NAME}")]

    def _write_due(self, client: BundleClient) -> None:
        for repository, digest in list(self._due.items()):
            directory = self._repositories / repository
            if digest and not (directory / "current").exists():
                continue  # it comes, or it goes: either is told
            offer(directory, repository, digest, client.bundles)
            del self._due[repository]


def offer(directory: Path, repository: RepoId, digest: Digest, ask: Callable[[RepoId], InForce]) -> None:
    """Bring one repository's file level with the manifest of that digest. Raises OSError, FleetError."""
    before = read_offers(directory)
    if not digest:
        write_offers(directory, ())
        return
    if before and before[0].digest == digest:
        return
    in_force = ask(repository)
    offered = in_force.state.offered
    newest = OfferedManifest(in_force.seq, offered, in_force.digest)
    kept = before[: KEPT_MANIFESTS - 1] if offered else ()
    write_offers(directory, (newest, *kept))
    _log.info("bundles.offered", repository=repository, seq=in_force.seq, entries=len(offered))
