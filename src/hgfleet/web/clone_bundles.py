"""Answers what clone bundles there are, as it fits the client's place.

Promises: what is answered was read back when it was published, and its changesets are exposed here; it
depends on nothing but the repository's file, the exposed seq, the client's address and its release.
Does not: serve the bundles themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from hgfleet.adapters.bundle_offers import read_offer
from hgfleet.adapters.location_files import Locations
from hgfleet.model.bundle_manifest import agent_reads_stream_v2, entries_for, format_manifest
from hgfleet.web.answers import Answer
from hgfleet.web.clone_counting import CloneCounter, FullClone
from hgfleet.web.repositories import Found
from hgfleet.web.requests import Request

COMMANDS = frozenset({b"clonebundles", b"clonebundles_manifest"})
_TYPE = "application/mercurial-0.1"


class CloneBundles:
    """The manifests of a mirror's repositories; any thread may ask."""

    def __init__(self, locations: Locations, counter: CloneCounter) -> None:
        self._locations = locations
        self._counter = counter

    def answer(self, found: Found, request: Request) -> Answer:
        """Return the manifest for the client, empty when there is none."""
        entries = read_offer(found.directory, found.app.view.seq)
        place = self._locations.find(request.client)
        agent = request.environ.get("HTTP_USER_AGENT", "")
        offered = entries_for(entries, place, agent_reads_stream_v2(agent))
        self._counter.count_offer(found.key.repository, place, offered)
        # What this client is told is not for others behind the same cache.
        headers = [
            ("Content-Type", _TYPE),
            ("Cache-Control", "private"),
            ("X-HgFleet-Seq", str(found.key.seq)),
        ]
        return Answer("200 Script output follows", format_manifest(offered), headers)

    def count(
        self, clone: FullClone, found: Found, request: Request, answered: Answer | Iterable[bytes]
    ) -> Answer | Iterable[bytes]:
        """Return the answer to a full clone that came here, to be counted with the reason."""
        place = self._locations.find(request.client)
        reason = clone.reason(has_bundles=found.key.bundles_at > 0)
        return self._counter.follow(found.key.repository, place, reason, answered)
