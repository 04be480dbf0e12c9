"""Publishes the bundle files of one repository to every store, and says what a manifest may name now.

Promises: nothing is named that was not read back from its store and then fetched through its public URL, size
and SHA-256 both times; a store that fails harms no other, and keeps what it had; different bytes never share
a name. Killed at any point and repeated, it goes on with what is there.
Does not: make the files, or append the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.ids import Digest, Node, RepoPath
from hgfleet.ports.object_store import ObjectStore, ReadBack
from hgfleet.runtime.faults import NO_FAULTS, Faults

_DIGITS_IN_NAME = 12


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """One bundle on disk, as it was made."""

    kind: BundleType
    path: Path
    spec: str
    size_bytes: int
    sha256: Digest


class PublicReader(Protocol):
    """Fetches what clients would (adapters.public_url)."""

    def read(self, url: str) -> ReadBack | None:
        """Return what is there, None when it is gone. Raises TransientError or RejectedError."""
        ...

    def size_of(self, url: str) -> int | None:
        """Return its size only."""
        ...


@dataclass(frozen=True, slots=True)
class BundleStore:
    """One configured store."""

    name: str
    objects: ObjectStore
    base_url: str  # of its objects, as clients reach them
    attributes: dict[str, str] = field(default_factory=dict)
    expiry_seconds: float = 0.0  # after which it removes what was not renewed; 0.0: never
    is_exclusive: bool = True  # nobody else puts bundles there

    def url_of(self, name: str) -> str:
        """Return the object's public URL."""
        return f"{self.base_url.rstrip('/')}/{name}"

    def name_of(self, url: str) -> str:
        """Return the name of the object at a URL; "" when it is not below this store's, or no longer."""
        base = self.url_of("")
        return url.removeprefix(base) if url.startswith(base) else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What did not work at one store."""

    store: str
    error: FleetError


@dataclass(frozen=True, slots=True)
class Published:
    """What may be named, and what failed; a store that failed may have some of the types all the same."""

    entries: tuple[ManifestEntry, ...]
    failures: tuple[Failure, ...]


def object_name(path: RepoPath, tip: Node, file: FinishedFile) -> str:
    """Return an object's name; the digest in it keeps bundles of one tip with other phases apart."""
    return f"{path}/{tip}.{file.sha256[:_DIGITS_IN_NAME]}.{file.kind.value}.hg"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes to a set of stores."""

    stores: Sequence[BundleStore]
    public: PublicReader
    faults: Faults = NO_FAULTS

    def publish(self, path: RepoPath, tip: Node, files: Iterable[FinishedFile]) -> Published:
        """Publish all files to all stores, one store after another; never raises for what one store does."""
        listed = list(files)
        outcomes = [
            outcome for store in self.stores for outcome in self._publish_to(store, path, tip, listed)
        ]
        return Published(
            tuple(outcome for outcome in outcomes if isinstance(outcome, ManifestEntry)),
            tuple(outcome for outcome in outcomes if isinstance(outcome, Failure)),
        )

    def _publish_to(
        self, store: BundleStore, path: RepoPath, tip: Node, files: Iterable[FinishedFile]
    ) -> Iterator[ManifestEntry | Failure]:
        """Publish to one store; once it cannot be reached, the other files are for the next run."""
        for file in files:
            try:
                yield self._publish_one(store, object_name(path, tip, file), file)
            except RejectedError as error:
                yield Failure(store.name, error)
            except TransientError as error:
                yield Failure(store.name, error)
                return

    def _publish_one(self, store: BundleStore, name: str, file: FinishedFile) -> ManifestEntry:
        wanted = ReadBack(file.size_bytes, file.sha256)
        found = store.objects.read_back(name)
        if found != wanted or not store.objects.renew(name):
            if found not in (
                None,
                wanted,
            ):  # the name has the digest in it: they are damaged
                store.objects.delete(name)
            self.faults.reach("bundles-before-upload")
            store.objects.put(name, file.path, file.sha256)
            self.faults.reach("bundles-after-upload")
            _check(store.objects.read_back(name), wanted, "the store has not what was put there", name)
        url = store.url_of(name)
        _check(self.public.read(url), wanted, "the public URL does not give what the store has", url)
        self.faults.reach("bundles-after-read-back")
        attributes = dict(store.attributes)
        return ManifestEntry(url, file.kind, file.spec, file.size_bytes, file.sha256, store.name, attributes)


def _check(found: ReadBack | None, wanted: ReadBack, fault: str, where: str) -> None:
    if found != wanted:
        raise RejectedError("bundles.not-read-back", fault, where=where)


def next_entries(
    before: Iterable[ManifestEntry], published: Published, stores: Iterable[str]
) -> list[ManifestEntry]:
    """Return what the next manifest names: what was published, what people added, and at a store that failed
    the bundles that it has from before; those of a store that is not configured any more are left out.
    """
    configured = set(stores)
    made = {(entry.store, entry.kind) for entry in published.entries}
    failed = {failure.store for failure in published.failures}
    kept = [
        entry
        for entry in before
        if entry.is_by_hand or (entry.store in configured & failed and (entry.store, entry.kind) not in made)
    ]
    return [*published.entries, *kept]
