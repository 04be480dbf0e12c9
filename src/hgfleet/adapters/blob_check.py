"""Whether the blob store does what it must: a probe is put, looked for, read, listed and deleted.

Promises: nothing stays behind unless deleting is what fails, and then it is said; a failure is a finding with
what mends it, never an exception.
Does not: look at any other blob, or know which adapter it asks.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from hgfleet.errors import FleetError, TransientError
from hgfleet.model.finding import Finding
from hgfleet.model.ids import Digest
from hgfleet.ports.blob_store import BlobStore
from hgfleet.runtime import clock

SUBJECT = "blob store"


def check_blob_store(store: BlobStore, place: str) -> list[Finding]:
    """Try every operation on a probe; `place` says where the store is, for people. Blocks."""
    data = f"hgfleet probe {uuid.uuid4().hex}".encode()
    sha256 = Digest(hashlib.sha256(data).hexdigest())
    started_at = clock.monotonic()
    with tempfile.TemporaryDirectory(prefix="hgfleet-probe-") as directory:
        source = Path(directory) / "probe"
        source.write_bytes(data)
        steps: dict[str, Callable[[], object]] = {
            "put": lambda: store.put(source, sha256),
            "look for": lambda: _expect(store.contains(sha256)),
            "get": lambda: store.get(sha256, Path(directory) / "back"),
            "delete": lambda: store.delete(sha256),
            "list": lambda: next(iter(store.list()), None),
        }
        for step, call in steps.items():
            try:
                call()
            except FleetError as error:
                return [Finding(SUBJECT, False, f"{place}: cannot {step} a blob: {error}", error.hint)]
    milliseconds = round((clock.monotonic() - started_at) * 1000)
    return [Finding(SUBJECT, True, f"{place}: put, get, list and delete work ({milliseconds} ms)")]


def _expect(is_there: bool) -> None:
    if not is_there:
        raise TransientError("blob.not-stored", "the blob store does not have what it took")
