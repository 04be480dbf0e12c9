"""The append of a session: its checks, its deadline and its answer.

Promises: "refused" is answered only when nothing was changed and never will be, "accepted" only of a message
that was read back and counts; whatever is open at the deadline is "in doubt" and goes on being settled.
Does not: check what the change contains (the session's hooks did), or settle (agent_appends).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.model.ids import Digest, Epoch, Partition, RepoId, Seq
from hgfleet.model.message import Envelope, Json, Kind, Message, PayloadRef, make_message
from hgfleet.model.settlement import check_append
from hgfleet.replication.agent_appends import Result, reach
from hgfleet.replication.agent_catalogue import check_settings
from hgfleet.replication.agent_parts import AgentParts
from hgfleet.replication.agent_primary import not_serving
from hgfleet.replication.agent_view import pushdata
from hgfleet.runtime import clock

SESSION_KINDS = frozenset({Kind.PUSH, Kind.SETTINGS, Kind.RESET})


@dataclass(frozen=True, slots=True)
class Change:
    """What a session asks to append."""

    repository: RepoId
    base_seq: Seq
    base_digest: Digest
    epoch: Epoch  # under which the base was read
    kind: Kind
    body: Mapping[str, Json]
    identity: str
    trace: str
    payload: PayloadRef
    inline: bytes


class ChangeDesk:
    """Takes the appends of sessions."""

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts
        self._view = parts.view
        self._faults = parts.options.faults

    async def append(self, change: Change, deadline_seconds: float) -> dict[str, Any]:
        """Append one change and return the answer's fields."""
        ends_at = clock.monotonic() + min(deadline_seconds, self._parts.options.append_deadline_seconds)
        try:
            future = await self._hand_over(change, ends_at)
        except (RejectedError, TransientError) as error:
            return _refused(error)
        done, _ = await asyncio.wait({future}, timeout=max(0.0, ends_at - clock.monotonic()))
        if not done:
            return {"outcome": "in_doubt", "reason": self._parts.io.last_error or "the log did not answer"}
        return await self.answer(future.result())

    async def _hand_over(self, change: Change, ends_at: float) -> asyncio.Future[Result]:
        """Check and hand over. Raises RejectedError or TransientError: nothing was handed over."""
        self._check_kind(change)
        await self.check_payload(change.payload, change.inline)
        await reach(self._faults, "agent-before-append")
        partition = self._partition(change.repository)
        await self._wait_for_turn(partition, change.repository, ends_at)
        # From here on nothing is awaited: what is checked is what is appended to.
        epoch = self._parts.primary.serving_epoch(partition)
        self._check_bound(change.repository)
        check_append(
            self._view.readers[partition], epoch, change.repository, change.base_seq, change.base_digest
        )
        if change.epoch != epoch:
            raise not_serving("the change was prepared under another epoch")
        return self._parts.desk.hand_over(pushdata(partition), _message(change, epoch))

    def _check_kind(self, change: Change) -> None:
        if change.kind not in SESSION_KINDS:
            raise RejectedError("append.kind", "no session appends messages of this kind", kind=change.kind)
        if change.kind is Kind.SETTINGS:
            check_settings(change.body.get("settings"))

    async def check_payload(self, payload: PayloadRef, inline: bytes) -> None:
        """Check that the payload is where the message says: one that is nowhere would park every mirror."""
        if payload.is_inline:
            if len(inline) > self._parts.options.inline_limit_bytes:
                raise RejectedError("append.too-large", "the payload is too large for the log itself")
            return
        loop = asyncio.get_running_loop()
        is_stored = await loop.run_in_executor(
            self._parts.blob_pool, self._parts.options.blobs.contains, payload.sha256
        )
        if not is_stored:
            raise RejectedError("blob.missing", "no such blob", status=404, sha256=payload.sha256)

    def _partition(self, repository: RepoId) -> Partition:
        partition = self._view.partition_of(repository)
        if partition is None:
            raise RejectedError("repo.unknown", "no such repository", status=404)
        return partition

    async def _wait_for_turn(self, partition: Partition, repository: RepoId, ends_at: float) -> None:
        """Wait for an earlier append of the repository, whose session may be gone."""
        while (earlier := self._parts.desk.unsettled(pushdata(partition), repository)) is not None:
            done, _ = await asyncio.wait({earlier}, timeout=max(0.0, ends_at - clock.monotonic()))
            if not done:
                raise TransientError(
                    "log.unsettled", "an earlier change is not confirmed yet", hint="try again soon"
                )

    def _check_bound(self, repository: RepoId) -> None:
        if self._view.catalogue.path_of(repository) is None:
            raise RejectedError("repo.unknown", "the repository was deleted", status=404)

    async def answer(self, result: Result) -> dict[str, Any]:
        """Return the answer's fields for what became of an append."""
        if not result.is_accepted:
            return _refused(result.refusal())
        try:
            await reach(self._faults, "agent-after-append")
        except TransientError as error:
            return {"outcome": "in_doubt", "reason": str(error)}
        head = result.head
        return {
            "outcome": "accepted",
            "seq": head.seq,
            "digest": head.digest,
            "offset": head.position.offset,
            "epoch": head.position.epoch,
            "at": result.at,
        }


def _message(change: Change, epoch: Epoch) -> Message:
    envelope = Envelope(
        kind=change.kind,
        repository=change.repository,
        seq=Seq(change.base_seq + 1),
        parent=change.base_digest,
        epoch=epoch,
        at=clock.now(),
        identity=change.identity,
        trace=change.trace,
        body=change.body,
        payload=change.payload,
    )
    return make_message(envelope, change.inline)


def _refused(error: FleetError) -> dict[str, Any]:
    return {
        "outcome": "refused",
        "class": "RejectedError" if isinstance(error, RejectedError) else "TransientError",
        "code": error.code,
        "reason": str(error),
        "hint": error.hint,
    }
