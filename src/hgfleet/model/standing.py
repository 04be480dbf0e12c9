"""What is in force among the messages about a repository: its snapshots and its bundle manifest.

These take no seq, any replica may append them, and they may land late. A late one must not bring back what
was replaced: the blobs and objects that it names may be gone by then.

Promises: of snapshots the highest seq is in force, whatever the order they land in; a manifest is in force
only if it was made from the one before it, which it names.
Does not: delete anything; retention may reach behind the older of the two newest snapshots, never further.
"""

from __future__ import annotations

from hgfleet.model.acceptance import Verdict
from hgfleet.model.ids import NO_DIGEST, Digest
from hgfleet.model.message import Json, Kind, Message

KEPT_SNAPSHOTS = 2


def manifest_body(in_force: Digest, entries: list[Json]) -> dict[str, Json]:
    """Return the body of a `bundles` message that replaces the manifest `in_force`, "" for the first."""
    return {"replaces": in_force, "entries": entries}


class Standing:
    """What is in force for one repository."""

    def __init__(self) -> None:
        self.snapshots: list[Message] = []  # newest first, at most two
        self.manifest: Message | None = None

    @property
    def manifest_digest(self) -> Digest:
        """The digest that the next manifest has to name."""
        return self.manifest.digest if self.manifest else NO_DIGEST

    def take(self, message: Message, verdict: Verdict) -> bool:
        """Take a message as the partition's reader judged it; return whether it is in force now."""
        if verdict is not Verdict.ABOUT:
            return False
        if message.envelope.kind is Kind.SNAPSHOT:
            return self._take_snapshot(message)
        if message.envelope.kind is Kind.BUNDLES:
            return self._take_manifest(message)
        return False

    def _take_snapshot(self, message: Message) -> bool:
        if self.snapshots and message.envelope.seq <= self.snapshots[0].envelope.seq:
            return False
        self.snapshots = [message, *self.snapshots][:KEPT_SNAPSHOTS]
        return True

    def _take_manifest(self, message: Message) -> bool:
        if message.envelope.body.get("replaces") != self.manifest_digest:
            return False
        self.manifest = message
        return True
