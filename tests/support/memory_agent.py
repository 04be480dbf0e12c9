"""A log in memory with the log agent client's methods, for tests whose log need not survive the process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from hgfleet.adapters.agent_answers import (
    AcceptedMessage,
    AppendRequest,
    LastMessage,
    LoggedMessage,
    MessageBatch,
    NamedSnapshot,
)
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError, RejectedError
from hgfleet.model.ids import (
    NO_DIGEST,
    START,
    Digest,
    Epoch,
    Offset,
    Partition,
    Position,
    RepoId,
    Seq,
)
from hgfleet.model.message import (
    Envelope,
    Json,
    Kind,
    Message,
    PayloadRef,
    decode_message,
    encode_message,
    make_message,
    payload_ref,
)

EPOCH = Epoch(3)


class MemoryAgent(LogAgentClient):
    """Accepts what fits; the next append raises `failure`, and counts all the same if `is_taken`."""

    def __init__(self, blobs: Path) -> None:
        super().__init__(Path("/nonexistent"))
        self.messages: dict[RepoId, list[Message]] = {}
        self.blobs = blobs
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.failure: FleetError | None = None
        self.is_taken = False
        self.serving_epoch = EPOCH
        self.named: list[NamedSnapshot] = []  # snapshots in force
        self.first_seq = 1  # what is before was forgotten
        self._at = 1_700_000_000.0

    def last(self, repository: RepoId) -> LastMessage:
        messages = self.messages.get(repository, [])
        last = messages[-1] if messages else None
        return LastMessage(
            seq=Seq(len(messages)),
            digest=last.digest if last else NO_DIGEST,
            position=_position(len(messages)) if last else START,
            partition=Partition(1) if last else None,
            is_deleted=last is not None and last.envelope.kind is Kind.DELETED,
            is_unsettled=False,
            serving_epoch=self.serving_epoch,
            parked="",
        )

    def write(
        self, repository: RepoId, kind: Kind, body: dict[str, Json], payload: bytes = b"", **changes: object
    ) -> Message:
        """Append whatever the test wants."""
        messages = self.messages.setdefault(repository, [])
        self._at += 1.25
        envelope = Envelope(
            kind=kind,
            repository=repository,
            seq=Seq(len(messages) + 1),
            parent=messages[-1].digest if messages else NO_DIGEST,
            epoch=EPOCH,
            at=self._at,
            identity="alice",
            trace=f"trace-{len(messages)}",
            body=body,
            payload=changes.get("ref") or payload_ref(payload),  # type: ignore[arg-type]
        )
        message = decode_message(encode_message(make_message(envelope, payload)))
        messages.append(message)
        return message

    def append(
        self,
        request: AppendRequest,
        deadline_seconds: float,
        on_handed_over: Callable[[], None] | None = None,
    ) -> AcceptedMessage:
        failure, self.failure = self.failure, None
        if failure is not None and not self.is_taken:
            raise failure
        last = self.last(request.repository)
        if (request.base_seq, request.base_digest) != (last.seq, last.digest):
            raise RejectedError("push.raced", "repository changed while pushing")
        ref: PayloadRef = request.payload
        message = self.write(request.repository, request.kind, dict(request.body), request.inline, ref=ref)
        if failure is not None:
            raise failure
        envelope = message.envelope
        return AcceptedMessage(envelope.seq, message.digest, _position(envelope.seq), envelope.at)

    def read(self, repository: RepoId, after_seq: int, max_bytes: int = 1 << 22) -> MessageBatch:
        messages = self.messages.get(repository, [])
        if after_seq + 1 < self.first_seq:
            raise RejectedError("log.overrun", "the log does not reach back so far", status=410)
        logged = [
            LoggedMessage(message.envelope.seq, _position(message.envelope.seq), encode_message(message))
            for message in messages[after_seq : after_seq + 7]
        ]
        return MessageBatch(tuple(logged), Seq(len(messages)))

    def snapshots(self, repository: RepoId) -> tuple[NamedSnapshot, ...]:
        return tuple(self.named)

    def blob_put(self, spool_file: Path, sha256: Digest, size_bytes: int) -> None:
        shutil.move(spool_file, self.blobs / sha256)

    def blob_get(self, sha256: Digest, target: Path) -> None:
        shutil.copy(self.blobs / sha256, target)


def _position(seq: int) -> Position:
    return Position(Offset(10 * seq), EPOCH)
