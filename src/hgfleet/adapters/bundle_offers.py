"""bundles.json: the bundle manifests of a repository that a mirror may offer, for its web workers.

    <repositories>/<id>/bundles.json    {"manifests": [{"seq", "digest", "entries"}, …]}, newest first

A manifest is offered once the mirror exposes the seq that it is about; until then the one before it is.

Promises: readers see a whole file; one that is damaged offers nothing, which costs a client a full clone and
never a wrong one.
Does not: check that the objects are there, or choose among the entries for a client (model.bundle_manifest).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters.files import write_by_rename
from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.bundle_manifest import ManifestEntry, parse_entries
from hgfleet.model.ids import NO_DIGEST, Digest, Seq, parse_digest

NAME = "bundles.json"


@dataclass(frozen=True, slots=True)
class OfferedManifest:
    """The entries, in the manifest's order, and the seq at which everything in the bundles is exposed."""

    seq: Seq
    entries: tuple[ManifestEntry, ...]
    digest: Digest = NO_DIGEST  # of the message that says so


def write_offers(directory: Path, manifests: Sequence[OfferedManifest]) -> None:
    """Replace the file; nothing to offer removes it. Raises OSError; then the old content stands."""
    path = directory / NAME
    if not any(manifest.entries for manifest in manifests):
        path.unlink(missing_ok=True)
        return
    fields = [
        {
            "seq": manifest.seq,
            "digest": manifest.digest,
            "entries": [entry.to_json() for entry in manifest.entries],
        }
        for manifest in manifests
    ]
    write_by_rename(path, json.dumps({"manifests": fields}).encode() + b"\n", mode=0o644)


def offers_stamp(directory: Path) -> int:
    """Return what changes with the file, nanoseconds; 0: there is none."""
    try:
        return (directory / NAME).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def read_offer(directory: Path, exposed: Seq) -> tuple[ManifestEntry, ...]:
    """Return the entries of the newest manifest that a mirror which exposes that seq may offer."""
    for manifest in read_offers(directory):
        if manifest.seq <= exposed:
            return manifest.entries
    return ()


def read_offers(directory: Path) -> tuple[OfferedManifest, ...]:
    """Return what the file has, the manifest in force first; nothing when it is damaged or not there."""
    try:
        fields = json.loads((directory / NAME).read_bytes())
        return tuple(
            OfferedManifest(
                Seq(int(item["seq"])), parse_entries(item["entries"]), parse_digest(item.get("digest", ""))
            )
            for item in fields["manifests"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, PoisonError, RejectedError):
        return ()
