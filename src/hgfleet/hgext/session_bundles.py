"""Offers clone bundles to SSH sessions on the primary, as mirrors do over HTTPS.

Promises: what is offered is in force at the log agent when it is asked, once in a session; without its answer
nothing is offered, and a clone costs more. What is in the bundles is at most what the session's copy has.
Does not: offer anything of repositories that were not opened for a session (`offer`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mercurial import extensions
from mercurial.exchanges import bundle_cache

from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.errors import FleetError
from hgfleet.hgext import clone_hints
from hgfleet.model.bundle_manifest import ANYWHERE, ManifestEntry, Place, entries_for, format_manifest
from hgfleet.model.ids import RepoId

_ASK_SECONDS = 2.0
_OFFER = "hgfleet_bundle_offer"
_is_set_up: list[bool] = []


def uisetup() -> None:
    """Prepare the process; may be called again."""
    if _is_set_up:
        return
    clone_hints.uisetup()
    extensions.wrapfunction(bundle_cache, "get_manifest_lines", _manifest_lines)
    _is_set_up.append(True)


def offer(repo: Any, repository: RepoId, agent_socket: Path, place: Place = ANYWHERE) -> None:
    """Let the session that has this repository open offer its bundles to a client at that place."""

    @cache
    def entries() -> tuple[ManifestEntry, ...]:
        return entries_for(_ask(repository, agent_socket), place)

    unfiltered = repo.unfiltered()
    unfiltered.hgfleet_has_bundles = entries
    setattr(unfiltered, _OFFER, entries)


def _ask(repository: RepoId, agent_socket: Path) -> Sequence[ManifestEntry]:
    try:
        with BundleClient(agent_socket, _ASK_SECONDS) as client:
            return client.bundles(repository).state.offered
    except FleetError:
        return ()


def _manifest_lines(orig: Any, repo: Any) -> list[bytes]:
    entries: Callable[[], Sequence[ManifestEntry]] | None = getattr(repo.unfiltered(), _OFFER, None)
    if entries is None:
        lines: list[bytes] = orig(repo)
        return lines
    return format_manifest(entries()).splitlines(keepends=True)
