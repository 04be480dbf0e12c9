"""What is in force among the messages about a repository: its snapshots and its bundle manifest.

These take no seq, any replica may append them, and they may land late. A late one must not bring back what
was replaced: the blobs and objects that it names may be gone by then.

Promises: of snapshots the highest position is in force, whatever the order they land in: the seq, and of two
at one seq the later look at the partition (a repository at rest gets a second one too); a manifest is in
force only if it was made from the one before it, which it names.
Does not: delete anything; retention may reach behind the older of the two newest snapshots, never further.
"""

from __future__ import annotations

from collections.abc import Iterator

from hgfleet.errors import PoisonError
from hgfleet.model.acceptance import RepoHead, Verdict
from hgfleet.model.ids import NO_DIGEST, Digest, RepoId
from hgfleet.model.message import Json, Kind, Message
from hgfleet.model.snapshot import Snapshot, parse_snapshot

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

    @property
    def newest(self) -> Snapshot | None:
        """The snapshot of the highest position."""
        return parse_snapshot(self.snapshots[0]) if self.snapshots else None

    @property
    def older(self) -> Snapshot | None:
        """The one before it, behind which retention may reach; None while there are not two."""
        return parse_snapshot(self.snapshots[-1]) if len(self.snapshots) == KEPT_SNAPSHOTS else None

    @property
    def messages(self) -> list[Message]:
        """Every message in force."""
        return [*self.snapshots, *([self.manifest] if self.manifest else [])]

    def take(self, message: Message, verdict: Verdict) -> bool:
        """Take a message as the partition's reader judged it; return whether it is in force now."""
        if verdict is not Verdict.ABOUT:
            return False
        if message.envelope.kind is Kind.SNAPSHOT:
            return self._take_snapshot(message)
        if message.envelope.kind is Kind.BUNDLES:
            return self._take_manifest(message)
        return False

    def put_back(self, message: Message) -> None:
        """Take one of `messages` of a standing that was written down, in their order."""
        if message.envelope.kind is Kind.SNAPSHOT:
            self.snapshots.append(message)
        else:
            self.manifest = message

    def _take_snapshot(self, message: Message) -> bool:
        try:
            rank = parse_snapshot(message).rank
        except PoisonError:
            return False  # it describes none: nothing depends on it
        if self.snapshots and rank <= parse_snapshot(self.snapshots[0]).rank:
            return False
        self.snapshots = [message, *self.snapshots][:KEPT_SNAPSHOTS]
        return True

    def _take_manifest(self, message: Message) -> bool:
        if message.envelope.body.get("replaces") != self.manifest_digest:
            return False
        self.manifest = message
        return True


class Standings:
    """What is in force for each repository that is not deleted."""

    def __init__(self) -> None:
        self._standings: dict[RepoId, Standing] = {}

    def __iter__(self) -> Iterator[tuple[RepoId, Standing]]:
        return iter(list(self._standings.items()))

    def get(self, repository: RepoId) -> Standing:
        """Return a repository's standing, an empty one when nothing was said about it."""
        return self._standings.get(repository) or Standing()

    def take(self, message: Message, verdict: Verdict, head: RepoHead) -> bool:
        """Take a message of any kind; `head` is the repository's after it. Return whether this changed.

        What is said of a seq that the partition does not have yet is nothing: nobody honest could know it.
        """
        envelope = message.envelope
        if verdict is Verdict.COUNTS and envelope.kind is Kind.DELETED:
            return self._standings.pop(envelope.repository, None) is not None
        if verdict is not Verdict.ABOUT or head.is_deleted or not 0 < envelope.seq <= head.seq:
            return False
        is_newest = envelope.kind is Kind.SNAPSHOT and envelope.seq == head.seq
        if is_newest and envelope.body.get("digest") != head.digest:
            return False
        standing = self._standings.setdefault(envelope.repository, Standing())
        return standing.take(message, verdict)

    def messages(self) -> Iterator[Message]:
        """Yield every message in force."""
        for standing in self._standings.values():
            yield from standing.messages

    def put_back(self, message: Message) -> None:
        """Take what was written down."""
        self._standings.setdefault(message.envelope.repository, Standing()).put_back(message)
