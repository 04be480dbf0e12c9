"""Removes bundles from a store that nothing names: of deleted repositories, and of runs that were killed;
and what an upload left that was killed on its way.

Promises: only what has a bundle's name, is older than the grace and is named by no manifest, no set that
could be restored and no list of what is removed later; nothing while the log, which may name more, cannot be
reached or read.
Does not: touch a store that other fleets use, too (`is_exclusive`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.bundles.publishing import BundleStore
from hgfleet.bundles.replacing import named_objects
from hgfleet.errors import TransientError

_UPLOAD_SECONDS = 86_400.0  # no upload that is still under way was begun so long ago
_NAME = re.compile(r".+/[0-9a-f]{40}\.[0-9a-f]{12}\.[a-z0-9-]+\.hg")


def sweep(store: BundleStore, named: set[tuple[str, str]], before: float) -> Iterator[str]:
    """Remove what nobody names and nobody has touched since `before`; yield the names of what went.

    Raises TransientError.
    """
    if not store.is_exclusive:
        return
    store.objects.clean_up(_UPLOAD_SECONDS)
    for stored in store.objects.list():
        is_named = (store.name, stored.name) in named
        if _NAME.fullmatch(stored.name) and not is_named and stored.modified_at < before:
            store.objects.delete(stored.name)
            yield stored.name


def read_named(client: BundleClient, stores: Sequence[BundleStore]) -> set[tuple[str, str]]:
    """Return store and name of every object that the log names. Raises TransientError or InDoubtError."""
    client.state_end()  # an answer of the log itself: what the agent has read of it is no older than that
    named: set[tuple[str, str]] = set()
    for bound in client.paths()[0]:
        in_force = client.bundles(bound.repository)
        if not in_force.is_readable:
            raise TransientError("bundles.unreadable", "what is in force cannot be read", path=bound.path)
        named |= named_objects(in_force.state, stores)
    return named
