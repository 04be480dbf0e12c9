"""Where clone bundles lie for clients to fetch: a CDN's origin, a region's bucket, a server's directory.

Promises every adapter keeps (tests/contract/test_object_store.py): an object is there whole or not at all; a
name that is taken keeps its bytes, putting other bytes there is refused; an object that is gone (None) is
told apart from a store that cannot be reached (TransientError): the first is dropped from manifests, the
second is not.
Does not: choose names, know repositories, or ask whether the public URL answers (adapters.public_url).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hgfleet.model.ids import Digest


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as the store lists it."""

    name: str  # `/`-separated, relative to the store
    size_bytes: int
    modified_at: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What the store really has: counted and hashed from its own bytes."""

    size_bytes: int
    sha256: Digest


class ObjectStore(Protocol):
    """Named objects that are published; calls may block for as long as moving the bytes takes."""

    def put(self, name: str, source: Path, sha256: Digest) -> None:
        """Publish the file under the name; the same bytes again only renew it.

        Raises RejectedError `object.bad-name`, `object.digest` when the file is not what it should be, or
        `object.taken` when other bytes have the name; TransientError when it could not be stored.
        """
        ...

    def put_page(self, name: str, data: bytes, content_type: str) -> None:
        """Publish or replace a small page, which is the one sort of object that changes."""
        ...

    def read_back(self, name: str) -> ReadBack | None:
        """Read the object and say what it is; None when there is none. Raises TransientError."""
        ...

    def renew(self, name: str) -> bool:
        """Restart the object's time to live; False when there is none. Raises TransientError."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; absent is fine. Raises TransientError."""
        ...

    def list(self) -> Iterator[StoredObject]:
        """Yield all objects. Raises TransientError."""
        ...

    def clean_up(self, older_than_seconds: float) -> int:
        """Remove what puts left that were begun so long ago and broke off; return how many.

        Raises TransientError.
        """
        ...
