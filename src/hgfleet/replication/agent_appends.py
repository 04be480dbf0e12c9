"""Hands messages to the log and tells what became of them, once that can no longer change.

Promises: an outcome comes from the log alone, read back (model.settlement). An append that the log did not
answer for is asked about with `void` messages (in the catalogue, and where several go together, with the same
bytes) until it is settled, whether anybody waits for it or not; until then nothing else is handed over for
that repository.
Does not: check who may append, or build the messages of changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from hgfleet.errors import InDoubtError, PoisonError, RejectedError, TransientError
from hgfleet.model.acceptance import RepoHead
from hgfleet.model.features import check_readable
from hgfleet.model.ids import Digest, HostName, Offset, RepoId
from hgfleet.model.message import Envelope, Kind, Message, decode_message, encode_message, make_message
from hgfleet.model.settlement import HandedOver, Outcome, Settled, handed_over
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication.agent_log_io import LogIo, Place
from hgfleet.replication.agent_view import CATALOGUE_PLACE, AgentView
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults

VOID_SECONDS = 0.25  # between two questions to a log that does not answer

logger = logging.getLogger("hgfleet.replication.agent_appends")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an append; `head` is the repository's right after it, when it was accepted."""

    settled: Settled
    head: RepoHead
    at: float  # the message's own time
    error: TransientError | None = None  # why the log did not take it

    @property
    def is_accepted(self) -> bool:
        """Whether the message counts."""
        return self.settled.outcome is Outcome.ACCEPTED

    def refusal(self) -> TransientError:
        """Return why nothing was changed."""
        if self.error is not None:
            return self.error
        texts = {
            "push.raced": "repository changed while pushing",
            "epoch.lost": "another host took over",
        }
        code = self.settled.code
        return TransientError(code, texts.get(code, "the log did not take the change"))


@dataclass(frozen=True, slots=True)
class _Awaited:
    future: asyncio.Future[Result]
    at: float
    records: list[NewRecord]  # the last one is the append itself; the others go before it


class AppendDesk:
    """Everything that is handed over and not settled."""

    def __init__(self, io: LogIo, view: AgentView, host: HostName) -> None:
        self._io = io
        self._view = view
        self._host = host
        self._results: dict[tuple[Place, RepoId], _Awaited] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        view.listeners.on_settled.append(self._note_settled)

    def hand_over(
        self, place: Place, message: Message, before: Sequence[Message] = ()
    ) -> asyncio.Future[Result]:
        """Hand a message over; the future is done when it is settled, which may take for ever.

        `before` are messages of the same repository that go into the log with it and lead up to it.

        Raises RejectedError `append.unreadable` for what no reader would take, `feature.not-everywhere` for
        what a host of an older release cannot read, TransientError `log.unsettled`
        when the repository waits for an earlier one. Between checking the message's base and this call
        nothing may be awaited.
        """
        envelope = message.envelope
        check_readable(envelope.kind, self._view.fleet.feature_levels(), envelope.body)
        append, record = handed_over(message), _record(place, message)
        records = [*(_record(place, earlier) for earlier in before), record]
        self._view.appends[place].begin(append)
        self._view.expect(record.value, message)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._results[place, append.repository] = _Awaited(future, message.envelope.at, records)
        self._io.append(records).add_done_callback(partial(self._note_answer, place, append))
        return future

    def unsettled(self, place: Place, repository: RepoId) -> asyncio.Future[Result] | None:
        """Return what the repository waits for, None when it is free."""
        awaited = self._results.get((place, repository))
        return None if awaited is None else awaited.future

    def unsettled_repositories(self) -> list[RepoId]:
        """Return the repositories with an unsettled append."""
        return [repository for _, repository in self._results]

    def named_blobs(self) -> set[Digest]:
        """Return the blobs that unsettled appends name."""
        messages = (decode_message(awaited.records[-1].value) for awaited in self._results.values())
        refs = (message.envelope.payload for message in messages)
        return {ref.sha256 for ref in refs if not ref.is_inline}

    def close(self) -> None:
        """Stop asking; what is unsettled is for the next life to find out."""
        for task in self._tasks:
            task.cancel()

    def _note_answer(self, place: Place, append: HandedOver, answer: asyncio.Future[list[Offset]]) -> None:
        """Take the log's word; what it took is settled by reading it back, here or soon."""
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, TransientError):
            self._withdraw(place, append, error)
        elif error is not None and self._is_open(place, append):
            logger.warning("append.in-doubt", extra=_fields(append) | {"reason": str(error)})
            task = asyncio.create_task(self._ask(place, append))
            self._tasks.add(task)
            task.add_done_callback(self._note_end)

    def _withdraw(self, place: Place, append: HandedOver, error: TransientError) -> None:
        if self._is_open(place, append):
            settled = self._view.appends[place].withdraw(append.repository)
            self._resolve(place, settled, error)

    async def _ask(self, place: Place, append: HandedOver) -> None:
        """Make the log answer: whatever takes the append's seq settles it."""
        self._view.appends[place].leave_unanswered(append.repository)
        records = self._results[place, append.repository].records
        is_repeated = place == CATALOGUE_PLACE or len(records) > 1  # a `void` there would leave a gap
        questions = records if is_repeated else [_record(place, self._void(append))]
        while self._is_open(place, append):
            with suppress(TransientError, InDoubtError):
                await self._io.append(questions)
            await self._view.until(lambda: not self._is_open(place, append), VOID_SECONDS)

    def _void(self, append: HandedOver) -> Message:
        envelope = Envelope(
            kind=Kind.VOID,
            repository=append.repository,
            seq=append.seq,
            parent=append.parent,
            epoch=append.epoch,
            at=clock.now(),
            identity=f"host:{self._host}",
            trace=append.digest,
        )
        return make_message(envelope)

    def _is_open(self, place: Place, append: HandedOver) -> bool:
        return self._view.appends[place].unsettled(append.repository) is append

    def _note_settled(self, place: Place, settled: Settled) -> None:
        self._resolve(place, settled, None)

    def _resolve(self, place: Place, settled: Settled, error: TransientError | None) -> None:
        repository = settled.append.repository
        awaited = self._results.pop((place, repository))
        self._view.expect_no_more(awaited.records[-1].value)
        awaited.future.set_result(Result(settled, self._view.head(repository), awaited.at, error))

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._io.fail(error)


async def reach(faults: Faults, point: str) -> None:
    """Reach a fault point without holding up the event loop; a full disk there is TransientError."""
    if faults is NO_FAULTS:
        return
    try:
        await asyncio.to_thread(faults.reach, point)
    except OSError as error:
        raise TransientError("log.full", "the log's disk is full", reason=str(error)) from error


def _record(place: Place, message: Message) -> NewRecord:
    """Return the record; one that readers would not take as this message would never be settled."""
    wire = encode_message(message)
    try:
        is_readable = decode_message(wire).digest == message.digest
    except PoisonError:
        is_readable = False
    if not is_readable:
        raise RejectedError("append.unreadable", "the change cannot be written as a message")
    return NewRecord(*place, wire)


def _fields(append: HandedOver) -> dict[str, object]:
    return {"repository": append.repository, "seq": append.seq, "epoch": append.epoch}
