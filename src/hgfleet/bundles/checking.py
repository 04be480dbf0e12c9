"""Checks that what is advertised can still be fetched, drops what cannot, and renews what would expire.

A bundle that is gone (404, 410, another size or digest) is dropped at once, even the last one: clients abort
on it. One that we cannot reach is likely reachable for clients: it is dropped only after a second look, and
only while a type has another entry that does answer.

Promises: a store or URL that cannot be asked never empties a manifest; what people added is checked like the
rest. Judging is pure; asking changes nothing.
Does not: put in force (bundles.repository_run), or make anew what was dropped: the policy sees it missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from hgfleet.bundles.publishing import BundleStore, PublicReader
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.bundle_manifest import ManifestEntry
from hgfleet.ports.object_store import ReadBack


class Condition(StrEnum):
    """How an advertised URL was found."""

    WELL = "well"
    GONE = "gone"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Checked:
    """One entry as it was found; `reason` is "" when it is well."""

    entry: ManifestEntry
    condition: Condition
    reason: str = ""


def check_entries(entries: Iterable[ManifestEntry], urls: PublicReader, *, is_whole: bool) -> list[Checked]:
    """Ask every URL: for its head, or with `is_whole` for all of it."""
    return [_check(entry, urls, is_whole=is_whole) for entry in entries]


def _check(entry: ManifestEntry, urls: PublicReader, *, is_whole: bool) -> Checked:
    try:
        reason = _fault_whole(entry, urls) if is_whole else _fault_of_head(entry, urls)
    except RejectedError as error:
        return Checked(entry, Condition.GONE, str(error))
    except TransientError as error:
        return Checked(entry, Condition.UNREACHABLE, str(error))
    return Checked(entry, Condition.GONE if reason else Condition.WELL, reason)


def _fault_of_head(entry: ManifestEntry, urls: PublicReader) -> str:
    size_bytes = urls.size_of(entry.url)
    if size_bytes is None:
        return "there is nothing"
    return "" if size_bytes == entry.size_bytes else f"it has {size_bytes} bytes"


def _fault_whole(entry: ManifestEntry, urls: PublicReader) -> str:
    found = urls.read(entry.url)
    if found is None:
        return "there is nothing"
    return "" if found == ReadBack(entry.size_bytes, entry.sha256) else "it has other bytes"


def to_be_dropped(checked: Sequence[Checked], unreachable_before: Set[str]) -> list[Checked]:
    """Return what shall be advertised no more; `unreachable_before` are URLs as the last look found them."""
    well = {one.entry.kind for one in checked if one.condition is Condition.WELL}
    return [
        one
        for one in checked
        if one.condition is Condition.GONE
        or (
            one.condition is Condition.UNREACHABLE
            and one.entry.url in unreachable_before
            and one.entry.kind in well
        )
    ]


def renew_entries(entries: Iterable[ManifestEntry], stores: Sequence[BundleStore]) -> list[Checked]:
    """Restart the time to live of entries, at stores that let objects expire; return what failed."""
    by_name = {store.name: store for store in stores if store.expiry_seconds}
    failed = []
    for entry in entries:
        store = by_name.get(entry.store)
        name = store.name_of(entry.url) if store is not None else ""
        if store is None or not name:
            continue
        try:
            if not store.objects.renew(name):
                failed.append(Checked(entry, Condition.GONE, "its store has it no more"))
        except (TransientError, RejectedError) as error:
            failed.append(Checked(entry, Condition.UNREACHABLE, str(error)))
    return failed
