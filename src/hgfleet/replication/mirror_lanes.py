"""Threads that bring copies further: each reads messages, fetches blobs and has its worker apply them.

Promises: every task is answered with exactly one outcome; a worker that dies costs one attempt at one copy;
nothing a task does is harmful when it is done again.
Does not: choose tasks or keep state between them (mirror_copies, applier).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from hgfleet.adapters.agent_answers import LoggedMessage, MessageBatch, NamedSnapshot
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import (
    FleetError,
    InDoubtError,
    InvariantError,
    PoisonError,
    RejectedError,
    TransientError,
)
from hgfleet.model.ids import CATALOGUE, Digest, Partition, RepoId, Seq
from hgfleet.model.message import Envelope, Kind, decode_message
from hgfleet.replication.mirror_worker import ApplyWorker
from hgfleet.runtime import clock

_log = structlog.get_logger()
MAX_BLOB_BYTES = 64 * 1024 * 1024  # payloads fetched for one batch; a single larger one goes alone


@dataclass(frozen=True, slots=True)
class ApplyTask:
    """Apply some messages after `after_seq` to the copy in `directory`."""

    repository: RepoId
    directory: Path  # repos/<RepoId>, or where a fresh copy is built
    partition: Partition
    after_seq: Seq
    max_messages: int
    max_bytes: int
    watermark: Seq  # a batch that ends beyond it leaves a view at each seq
    may_delete: bool = False
    is_rebuild: bool = False


@dataclass(frozen=True, slots=True)
class InspectTask:
    """Look at a copy after a crash: finish or undo what was under way."""

    repository: RepoId
    directory: Path


@dataclass(frozen=True, slots=True)
class AdoptTask:
    """Put the copy built in `built` in the place of the one in use."""

    repository: RepoId
    directory: Path
    built: Path


@dataclass(frozen=True, slots=True)
class CatalogueTask:
    """Read messages of the catalogue."""

    after_seq: Seq
    repository: RepoId = CATALOGUE


Task = ApplyTask | InspectTask | AdoptTask | CatalogueTask


@dataclass(frozen=True, slots=True)
class Applied:
    """Messages were applied; `is_held`: the next one is `deleted`, which was not asked for."""

    task: ApplyTask
    seq: Seq
    last_seq: Seq  # the end of the sequence as read
    count: int
    seconds: float
    is_held: bool = False
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Inspected:
    """Where a copy stands; `is_adopted`: it has just been put in place."""

    task: InspectTask | AdoptTask
    seq: Seq
    is_adopted: bool = False


@dataclass(frozen=True, slots=True)
class CatalogueRead:
    """Messages of the catalogue."""

    task: CatalogueTask
    batch: MessageBatch


@dataclass(frozen=True, slots=True)
class Failed:
    """The task was not done, or not to its end; `is_poison`: it can't be. `reason` begins with the code."""

    task: Task
    reason: str
    is_poison: bool
    applied: Seq | None = None  # as far as a poisoned batch came


Outcome = Applied | Inspected | CatalogueRead | Failed


class Lane(threading.Thread):
    """One thread with one worker."""

    def __init__(
        self,
        name: str,
        worker: ApplyWorker,
        client: LogAgentClient,
        blobs: Path,
        next_task: Callable[[], Task],
        report: Callable[[Outcome], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._worker = worker
        self._client = client
        self._blobs = blobs
        self._next_task = next_task
        self._report = report

    def run(self) -> None:
        """Do tasks for ever; the worker ends with this thread."""
        with suppress(TransientError):
            self._worker.start()
        while True:
            task = self._next_task()
            self._report(self._attempt(task))

    def _attempt(self, task: Task) -> Outcome:
        try:
            return self._do(task)
        except (TransientError, InDoubtError, OSError) as error:
            return Failed(task, _describe(error), is_poison=False)
        except (PoisonError, RejectedError, InvariantError) as error:
            return Failed(task, _describe(error), is_poison=True, applied=_applied_before(error))

    def _do(self, task: Task) -> Outcome:
        match task:
            case ApplyTask():
                return self._apply(task)
            case InspectTask():
                answer = self._worker.request("inspect", directory=str(task.directory))
                return Inspected(task, Seq(answer.header["seq"]))
            case AdoptTask():
                answer = self._worker.request("adopt", directory=str(task.directory), built=str(task.built))
                return Inspected(task, Seq(answer.header["seq"]), is_adopted=True)
            case CatalogueTask():
                return CatalogueRead(task, self._client.catalogue(task.after_seq))

    def _apply(self, task: ApplyTask) -> Outcome:
        if task.is_rebuild and not task.after_seq:
            shutil.rmtree(task.directory, ignore_errors=True)  # what an earlier attempt left
            self._worker.request("forget", directory=str(task.directory))
        if not task.after_seq and (restored := self._restore(task)) is not None:
            return restored
        batch = self._client.read(task.repository, task.after_seq, task.max_bytes)
        chosen = _choose(batch.messages, task)
        if not chosen.messages:
            return Applied(task, task.after_seq, batch.last_seq, 0, 0.0, is_held=chosen.is_held)
        for envelope in chosen.blobs:
            self._fetch(envelope)
        started_at = clock.monotonic()
        seq = self._request_apply(task, chosen.messages)
        seconds = clock.monotonic() - started_at
        if chosen.blobs:
            shutil.rmtree(self._blobs / task.repository, ignore_errors=True)
        return Applied(
            task, seq, batch.last_seq, len(chosen.messages), seconds, chosen.is_held, chosen.is_deleted
        )

    def _restore(self, task: ApplyTask) -> Applied | None:
        """Begin a copy from the newest snapshot that can be had; None: from the log's start."""
        for snapshot in self._client.snapshots(task.repository):
            source = self._blobs / task.repository / "snapshot"
            source.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._client.blob_get(snapshot.blob.sha256, source)
                seq = self._request_restore(task, snapshot, source)
            except (PoisonError, RejectedError) as error:  # the next best is good enough
                names = {"repository": task.repository, "seq": snapshot.seq, "host": snapshot.host}
                _log.error("applier.snapshot-unusable", **names, reason=_describe(error))
                continue
            finally:
                source.unlink(missing_ok=True)
            _log.info("applier.restored", repository=task.repository, seq=seq)
            return Applied(task, seq, self._client.last(task.repository).seq, 1, 0.0)
        return None

    def _request_restore(self, task: ApplyTask, snapshot: NamedSnapshot, source: Path) -> Seq:
        answer = self._worker.request(
            "restore",
            directory=str(task.directory),
            source=str(source),
            seq=snapshot.seq,
            digest=snapshot.digest,
        )
        return Seq(answer.header["seq"])

    def _fetch(self, envelope: Envelope) -> None:
        directory = self._blobs / envelope.repository
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / envelope.payload.sha256
        if not path.exists():
            self._client.blob_get(Digest(envelope.payload.sha256), path)

    def _request_apply(self, task: ApplyTask, messages: list[LoggedMessage]) -> Seq:
        headers = [
            {
                "size_bytes": len(message.wire),
                "seq": message.seq,
                "offset": message.position.offset,
                "epoch": message.position.epoch,
            }
            for message in messages
        ]
        answer = self._worker.request(
            "apply",
            b"".join(message.wire for message in messages),
            repository=task.repository,
            directory=str(task.directory),
            partition=task.partition,
            messages=headers,
            snapshot_each=messages[-1].seq > task.watermark,
            blob_directory=str(self._blobs / task.repository),
        )
        return Seq(answer.header["applied_seq"])


@dataclass(slots=True)
class _Chosen:
    messages: list[LoggedMessage]
    blobs: list[Envelope]
    is_held: bool = False
    is_deleted: bool = False


def _choose(messages: tuple[LoggedMessage, ...], task: ApplyTask) -> _Chosen:
    """Take messages up to the task's limits, and never a `deleted` that it does not allow."""
    chosen = _Chosen([], [])
    blob_bytes = 0
    envelope_of = _Envelopes()
    for message in _past_voids(messages, envelope_of)[: task.max_messages]:
        if chosen.messages and task.after_seq < task.watermark < message.seq:
            break  # up to the watermark one view at the end is enough
        envelope = envelope_of(message)
        if envelope.kind is Kind.DELETED and not task.may_delete:
            chosen.is_held = True
            break
        if not envelope.payload.is_inline:
            blob_bytes += envelope.payload.size_bytes
            if blob_bytes > MAX_BLOB_BYTES and chosen.messages:
                break
            chosen.blobs.append(envelope)
        chosen.messages.append(message)
        chosen.is_deleted = envelope.kind is Kind.DELETED
    return chosen


class _Envelopes:
    """Decodes each message of a batch once, when it is first asked for."""

    def __init__(self) -> None:
        self._by_seq: dict[Seq, Envelope] = {}

    def __call__(self, message: LoggedMessage) -> Envelope:
        envelope = self._by_seq.get(message.seq)
        if envelope is None:
            envelope = self._by_seq[message.seq] = decode_message(message.wire).envelope
        return envelope


def _past_voids(
    messages: tuple[LoggedMessage, ...], envelope_of: Callable[[LoggedMessage], Envelope]
) -> tuple[LoggedMessage, ...]:
    """Go to the `reset` that voids lead up to: a copy ahead of a log that was cut cannot apply them."""
    for number, message in enumerate(messages):
        kind = envelope_of(message).kind
        if kind is not Kind.VOID:
            return messages[number:] if kind is Kind.RESET else messages
    return messages


def _describe(error: Exception) -> str:
    if isinstance(error, FleetError):
        return f"{error.code}: {error}"
    return f"io: {error}"


def _applied_before(error: FleetError) -> Seq | None:
    seq: Any = error.context.get("applied_seq")
    return Seq(seq) if isinstance(seq, int) else None
