"""Where payloads too large for the log lie, named by their SHA-256.

Promises every adapter keeps (tests/contract/test_blob_store.py): a blob that put() returned for is durable
and whole; get() never yields bytes of another digest; putting the same blob twice changes nothing.
Does not: know which message names a blob.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from hgfleet.model.ids import Digest


class BlobStore(Protocol):
    """Immutable blobs by digest."""

    def put(self, source: Path, sha256: Digest) -> None:
        """Store the file's bytes under their digest, durably.

        Raises RejectedError `blob.digest` when they differ from it, TransientError when it could not be
        stored.
        """
        ...

    def get(self, sha256: Digest, target: Path) -> None:
        """Write the blob to `target` (by rename), checked.

        Raises RejectedError `blob.missing`, PoisonError `blob.damaged`, or TransientError.
        """
        ...

    def contains(self, sha256: Digest) -> bool:
        """Say whether the blob is stored, so that no message names one that is not. Raises TransientError."""
        ...

    def delete(self, sha256: Digest) -> None:
        """Remove the blob; absent is fine."""
        ...

    def list(self) -> Iterator[tuple[Digest, int, float]]:
        """Yield (digest, size in bytes, modified at) of every blob."""
        ...

    def clean_up(self, older_than_seconds: float) -> int:
        """Remove what puts left that were begun so long ago and broke off; return how many.

        Raises TransientError.
        """
        ...
