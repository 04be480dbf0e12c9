"""What a repository's bundle state becomes when its bundles were made anew, withdrawn or cleaned up after.

Promises: pure. What people added stays; an object that no set names any more is noted as retired with the
time, and one that is named again is not; a type never has only entries that need SNI.
Does not: publish, append or delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hgfleet.bundles.publishing import BundleStore, Published, next_entries
from hgfleet.model.bundle_manifest import ManifestEntry, arrange, types_without_fallback
from hgfleet.model.bundle_state import BundleSet, BundleState, Made, Retired


def with_new_bundles(
    before: BundleState,
    published: Published,
    made: Made,
    chosen: Sequence[str],
    stores: Sequence[BundleStore],
) -> BundleState:
    """Return the state in which what was published is offered, in the order of the chosen stores' names."""
    names = list(chosen)
    entries = next_entries(before.current.entries, published, names)
    lone = types_without_fallback(entries)
    fitting = arrange((e for e in entries if e.is_by_hand or not e.needs_sni or e.kind not in lone), names)
    after = replace(before, current=BundleSet(fitting, made), previous=before.current)
    return _noting_retired(before, after, stores, made.at)


def without_bundles(before: BundleState, stores: Sequence[BundleStore], now: float) -> BundleState:
    """Return the state in which only what people added is offered."""
    by_hand = tuple(entry for entry in before.current.entries if entry.is_by_hand)
    after = replace(before, current=BundleSet(by_hand, None), previous=None)
    return _noting_retired(before, after, stores, now)


def with_entries(
    before: BundleState, entries: Sequence[ManifestEntry], stores: Sequence[BundleStore], now: float
) -> BundleState:
    """Return the state that offers these, in their order, made as what was offered before."""
    after = replace(before, current=replace(before.current, entries=tuple(entries)))
    return _noting_retired(before, after, stores, now)


def due_for_removal(state: BundleState, grace_seconds: float, now: float) -> list[Retired]:
    """Return the objects that nobody can be about to fetch any more."""
    return [one for one in state.retired if now - one.at >= grace_seconds]


def without_removed(state: BundleState, removed: Iterable[Retired]) -> BundleState:
    """Return the state that knows nothing of these objects."""
    gone = set(removed)
    return replace(state, retired=tuple(one for one in state.retired if one not in gone))


def named_objects(state: BundleState, stores: Sequence[BundleStore]) -> set[tuple[str, str]]:
    """Return store and name of every object that the state still has a use for."""
    by_name = {store.name: store for store in stores}
    return {*_objects(state, by_name), *((one.store, one.name) for one in state.retired)}


def _noting_retired(
    before: BundleState, after: BundleState, stores: Sequence[BundleStore], now: float
) -> BundleState:
    by_name = {store.name: store for store in stores}
    named = set(_objects(after, by_name))
    since = {(one.store, one.name): one.at for one in before.retired}
    dropped = dict.fromkeys([*since, *_objects(before, by_name)])
    retired = [Retired(*object_, since.get(object_, now)) for object_ in dropped if object_ not in named]
    return replace(after, retired=tuple(retired))


def _objects(state: BundleState, by_name: dict[str, BundleStore]) -> list[tuple[str, str]]:
    """Return store and name of every object that the state names."""
    sets = [state.current, *([state.previous] if state.previous else [])]
    entries = [entry for each in sets for entry in each.entries]
    return [(entry.store, name) for entry in entries if (name := _name_of(entry, by_name))]


def _name_of(entry: ManifestEntry, by_name: dict[str, BundleStore]) -> str:
    store = by_name.get(entry.store)
    return store.name_of(entry.url) if store is not None else ""
