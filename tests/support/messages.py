"""Builds messages and partitions for tests of the model: one line per message.

A `Chain` is what an honest primary of one repository would write; `message` makes any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from hgfleet.model.ids import CATALOGUE, NO_DIGEST, Digest, Epoch, Offset, RepoId, Seq
from hgfleet.model.message import Envelope, Json, Kind, Message, PayloadRef, make_message

R1 = RepoId("1" * 32)
R2 = RepoId("2" * 32)
R3 = RepoId("3" * 32)


def message(
    kind: Kind,
    repository: RepoId = R1,
    seq: int = 0,
    parent: Digest = NO_DIGEST,
    *,
    epoch: int = 1,
    body: Mapping[str, Json] | None = None,
    trace: str = "t",
) -> Message:
    """Return a message; two that differ only in `trace` have different digests."""
    envelope = Envelope(
        kind=kind,
        repository=repository,
        seq=Seq(seq),
        parent=parent,
        epoch=Epoch(epoch),
        at=1.0,
        identity="alice",
        trace=trace,
        body=body or {},
    )
    return make_message(envelope)


def epoch(number: int) -> Message:
    """Return a partition's epoch message."""
    body: dict[str, Json] = {"number": number, "host": "one", "life": "a"}
    return message(Kind.EPOCH, CATALOGUE, epoch=number, body=body)


class Chain:
    """One repository's messages, or the catalogue's, each following the one before."""

    def __init__(self, repository: RepoId = R1, *, epoch: int = 1) -> None:
        self.repository = repository
        self.epoch = epoch
        self.seq = 0
        self.digest = NO_DIGEST

    def next(self, kind: Kind, body: Mapping[str, Json] | None = None, *, trace: str = "t") -> Message:
        """Return the next message and go on from it."""
        made = self.peek(kind, body, trace=trace)
        self.seq, self.digest = self.seq + 1, made.digest
        return made

    def peek(self, kind: Kind, body: Mapping[str, Json] | None = None, *, trace: str = "t") -> Message:
        """Return what would be the next message."""
        return message(
            kind, self.repository, self.seq + 1, self.digest, epoch=self.epoch, body=body, trace=trace
        )


def offset(number: int) -> Offset:
    """Return an offset; shorter to write in a test."""
    return Offset(number)


def snapshot_message(
    seq: int, *, repository: RepoId = R1, as_of: int = 0, digest: str = "", epoch: int = 1, trace: str = "t"
) -> Message:
    """A `snapshot` message; `digest` is that of the message at seq."""
    sha256 = hashlib.sha256(f"{repository}/{seq}/{as_of}/{trace}".encode()).hexdigest()
    body: dict[str, Json] = {
        "digest": digest or "ab" * 32,
        "as_of": as_of,
        "state_digest": "cd" * 32,
        "changesets": 3,
        "host": "mirror1",
    }
    made = message(Kind.SNAPSHOT, repository, seq, epoch=epoch, body=body, trace=trace)
    return make_message(replace(made.envelope, payload=PayloadRef(1000, Digest(sha256), False)))
