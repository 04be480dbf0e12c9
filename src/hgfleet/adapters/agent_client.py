"""A blocking client of this host's log agent, one typed method per operation.

Every request is the operation of the same name in docs/design/local-protocols.md. The connection is made when
it is first needed, anew in a forked child, and after it broke.

Promises: a question is repeated once on a new connection. append() returns only when the change is accepted;
it raises TransientError or RejectedError only when nothing was changed and never will be, and InDoubtError
otherwise, after having asked the agent's next life when the agent died over it. Any other change whose answer
was lost is InDoubtError, too. A stream ends with an error; its reader connects again.
Does not: import asyncio or anything outside the standard library, retry changes, or decode for its callers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from hgfleet.adapters.agent_answers import (
    AcceptedMessage,
    AdoptRequest,
    AgentHello,
    AppendRequest,
    BoundPath,
    CatalogueChange,
    FeedEvent,
    FollowEvent,
    LastMessage,
    LoggedMessage,
    MessageBatch,
    NamedSnapshot,
    RawRecord,
    StateEvent,
    Visibility,
    parse_batch,
    parse_bound_path,
    parse_catalogue_change,
    parse_due,
    parse_feed_event,
    parse_follow_event,
    parse_hello,
    parse_last,
    parse_outcome,
    parse_paths,
    parse_records,
    parse_snapshots,
    parse_state_event,
    parse_visibility,
    parse_with,
    payload_fields,
)
from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import FleetError, InDoubtError, TransientError
from hgfleet.model.frames import Frame
from hgfleet.model.ids import Digest, Offset, RepoId, Seq
from hgfleet.model.message import Json, Message, PayloadRef, Topic, decode_message
from hgfleet.model.settlement import Outcome, outcome_of_earlier
from hgfleet.runtime import clock

SETTLE_PAUSE_SECONDS = 0.02
SETTLE_GRACE_SECONDS = 2.0  # for the answer to come after the agent's own deadline
BLOB_SECONDS = 3600.0  # a blob may be as large as a whole repository
ADOPT_SECONDS = 600.0  # it may append as many messages as the log has lost
ANNOUNCE_SECONDS = 15.0  # the agent reads the message back
READ_BYTES = 4 * 1024 * 1024
T = TypeVar("T")


class LogAgentClient:
    """Requests to the agent behind one socket path; not for two threads at once."""

    def __init__(self, socket_path: Path, timeout_seconds: float = 30.0) -> None:
        """Note where the agent is; `timeout_seconds` bounds every wait for an answer."""
        self._path = socket_path
        self._timeout_seconds = timeout_seconds
        self._connection: LocalClient | None = None
        self._owner_pid = 0

    # ---- questions: TransientError when the agent cannot answer

    def hello(self) -> AgentHello:
        """Ask who answers."""
        return self._ask(parse_hello, "hello", role="client", host="")

    def last(self, repository: RepoId) -> LastMessage:
        """Ask for the end of a repository's sequence (CATALOGUE: the catalogue's)."""
        return self._ask(parse_last, "last", repository=repository)

    def require_takes_changes(self, repository: RepoId) -> None:
        """Raise TransientError `log.unavailable` when the log is known to take no change of it now."""
        reason = self._ask(lambda frame: str(frame.header["reason"]), "obstacle", repository=repository)
        if reason:
            raise TransientError(
                "log.unavailable",
                "the replication log takes no changes now",
                hint="try again later; reading is not affected",
                reason=reason,
            )

    def read(self, repository: RepoId, after_seq: int, max_bytes: int = READ_BYTES) -> MessageBatch:
        """Return messages after a seq, at least one if there is any; RejectedError `log.overrun`."""
        return self._ask(parse_batch, "read", repository=repository, after_seq=after_seq, max_bytes=max_bytes)

    def catalogue(self, after_seq: int, max_bytes: int = READ_BYTES) -> MessageBatch:
        """Return messages of the catalogue after a seq."""
        return self._ask(parse_batch, "catalogue", after_seq=after_seq, max_bytes=max_bytes)

    def resolve(self, path: str) -> BoundPath:
        """Return where a path leads. Raises RejectedError `repo.unknown` or `repo.bad-path`."""
        return self._ask(lambda frame: parse_bound_path(frame.header), "resolve", path=path)

    def paths(self) -> tuple[tuple[BoundPath, ...], Seq]:
        """Return every path in order, and the catalogue's seq of which that is true."""
        return self._ask(parse_paths, "paths")

    def state_end(self) -> Offset:
        """Return a freshly fetched end of the state topic."""
        return self._ask(lambda frame: Offset(frame.header["offset"]), "state_end")

    def wait_visible(self, repository: RepoId, seq: int, timeout_seconds: float) -> Visibility:
        """Block until every mirror in service shows `seq`, or the time is over."""
        return self._ask(
            parse_visibility,
            "wait_visible",
            timeout_seconds,
            repository=repository,
            seq=seq,
            timeout_seconds=timeout_seconds,
        )

    def records(
        self, topic: Topic, partition: int, offset: int, max_bytes: int = READ_BYTES
    ) -> tuple[RawRecord, ...]:
        """Return raw records from an offset on, counting or not."""
        return self._ask(
            parse_records,
            "records",
            topic=topic.value,
            partition=partition,
            offset=offset,
            max_bytes=max_bytes,
        )

    def status(self) -> dict[str, Any]:
        """Return the agent's state for people and metrics."""
        return self._ask(lambda frame: frame.header, "status")

    def lag(self) -> dict[str, Any]:
        """Return how far hosts are behind, per partition and per repository, for people."""
        return self._ask(lambda frame: frame.header, "lag")

    def blob_get(self, sha256: Digest, target: Path) -> None:
        """Have the blob written to `target`; RejectedError `blob.missing`, PoisonError `blob.damaged`."""
        self._ask(lambda _: None, "blob_get", BLOB_SECONDS, sha256=sha256, path=str(target.absolute()))

    def snapshots(self, repository: RepoId) -> tuple[NamedSnapshot, ...]:
        """Return the repository's snapshots in force, the newest first; at most two."""
        return self._ask(parse_snapshots, "snapshots", repository=repository)

    def snapshots_due(self, host: str) -> tuple[RepoId, ...]:
        """Return which repositories the host shall make a snapshot of now, the longest due first."""
        return self._ask(parse_due, "snapshots_due", host=host)

    # ---- changes: InDoubtError when the answer is lost

    def append(
        self,
        request: AppendRequest,
        deadline_seconds: float,
        on_handed_over: Callable[[], None] | None = None,
    ) -> AcceptedMessage:
        """Append one change, conditionally; blocks at most a little longer than the deadline.

        `on_handed_over` is called when the agent has the request and has not answered yet.
        """
        grace_seconds = deadline_seconds + SETTLE_GRACE_SECONDS
        ends_at = clock.monotonic() + grace_seconds
        fields = {**request.to_fields(), "deadline_seconds": deadline_seconds}
        try:
            frame = self._change("append", fields, request.inline, grace_seconds, on_handed_over)
        except InDoubtError as error:
            if not _is_broken_connection(error):
                raise
            return self._settle(request, ends_at)
        return parse_with(parse_outcome, frame)

    def blob_put(self, spool_file: Path, sha256: Digest, size_bytes: int) -> None:
        """Hand a spool file over to the blob store and lose it; putting it again is harmless."""
        fields = {"path": str(spool_file.absolute()), "sha256": sha256, "size_bytes": size_bytes}
        self._change("blob_put", fields, wait_seconds=BLOB_SECONDS)

    def announce(self, header: Mapping[str, Json], blob: PayloadRef, host: str) -> bool:
        """Append the message about a stored snapshot; return whether it is in force, not a better one.

        Raises RejectedError `snapshot.unknown-state`, `feature.not-everywhere`, …: it never will be.
        """
        fields = {"header": dict(header), "payload": payload_fields(blob), "host": host}
        frame = self._change("announce", fields, wait_seconds=self._timeout_seconds + ANNOUNCE_SECONDS)
        return parse_with(lambda frame: frame.header["is_in_force"] is True, frame)

    def create(
        self, path: str, settings: Mapping[str, Json], *, identity: str, trace: str
    ) -> CatalogueChange:
        """Create a repository. Raises RejectedError `repo.exists`, …: nothing was changed."""
        fields = {"path": path, "settings": dict(settings), "identity": identity, "trace": trace}
        return parse_with(parse_catalogue_change, self._change("create", fields))

    def delete(self, path: str, *, identity: str, trace: str) -> CatalogueChange:
        """Unbind a path and delete its repository. Raises RejectedError `repo.unknown`, …"""
        fields = {"path": path, "identity": identity, "trace": trace}
        return parse_with(parse_catalogue_change, self._change("delete", fields))

    def rename(self, path: str, new_path: str, *, identity: str, trace: str) -> CatalogueChange:
        """Move a repository to another path. Raises RejectedError `repo.unknown`, `repo.exists`, …"""
        fields = {"path": path, "new_path": new_path, "identity": identity, "trace": trace}
        return parse_with(parse_catalogue_change, self._change("rename", fields))

    def adopt(self, request: AdoptRequest) -> AcceptedMessage:
        """Append the `reset` of a copy ahead of its log, and whatever the log lacks before it."""
        frame = self._change("adopt", request.to_fields(), request.inline, ADOPT_SECONDS)
        return parse_with(parse_outcome, frame)

    def state_publish(self, records: Mapping[str, Any]) -> Offset:
        """Publish records by key (None removes it), in order; return the offset after the last one."""
        items = [{"key": key, "value": value} for key, value in records.items()]
        return Offset(self._change("state_publish", {"records": items}).header["offset"])

    def feed_append(self, wires: Sequence[bytes]) -> Offset:
        """Append records to the feed, in order; return the offset after the last one."""
        frame = self._change("feed_append", {"sizes": [len(wire) for wire in wires]}, b"".join(wires))
        return Offset(frame.header["offset"])

    # ---- streams, each on a connection of its own

    def follow(self) -> EventStream[FollowEvent]:
        """Begin a stream: a LogSnapshot, then an Advanced per message that counts."""
        return EventStream(self._connect(), "follow", parse_follow_event)

    def state_follow(self) -> EventStream[StateEvent]:
        """Begin a stream of the state topic from its start; a StateEnd marks where it had ended."""
        return EventStream(self._connect(), "state_follow", parse_state_event)

    def feed_follow(self, offset: Offset | None = None) -> EventStream[FeedEvent]:
        """Begin a stream of the feed from an offset, or from its end; a FeedEnd marks where it had ended."""
        return EventStream(self._connect(), "feed_follow", parse_feed_event, offset=offset)

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- one request, one answer

    def _ask(self, parse: Callable[[Frame], T], op: str, longer_seconds: float = 0.0, **fields: Any) -> T:
        """Ask; once more on a new connection when the agent was restarted in between."""
        wait_seconds = self._timeout_seconds + longer_seconds
        try:
            frame = self._exchange(op, fields, b"", wait_seconds)
        except (TransientError, InDoubtError) as error:
            if not _is_broken_connection(error):
                raise
            frame = self._ask_again(op, fields, wait_seconds)
        return parse_with(parse, frame)

    def _ask_again(self, op: str, fields: Mapping[str, Any], wait_seconds: float) -> Frame:
        try:
            return self._exchange(op, fields, b"", wait_seconds)
        except InDoubtError as error:
            if not _is_broken_connection(error):
                raise
            raise TransientError(
                "local.unreachable", "the log agent does not answer", op=op, reason=str(error)
            ) from error

    def _change(
        self,
        op: str,
        fields: Mapping[str, Any],
        body: bytes = b"",
        wait_seconds: float | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Frame:
        """Ask for a change on a connection that is known to be alive."""
        if self._connection is not None and self._connection.is_readable(0):
            self.close()  # nothing is due on an idle connection but its end
        seconds = self._timeout_seconds if wait_seconds is None else wait_seconds
        return self._exchange(op, fields, body, seconds, on_sent)

    def _exchange(
        self,
        op: str,
        fields: Mapping[str, Any],
        body: bytes,
        wait_seconds: float,
        on_sent: Callable[[], None] | None = None,
    ) -> Frame:
        """Send a request and return its answer; raise what the answer names.

        TransientError `local.unreachable` when it was not handed over, InDoubtError `local.cut-off` when the
        answer was lost.
        """
        connection = self._connected()
        try:
            connection.send({"op": op, **fields}, body)
            if on_sent is not None:
                on_sent()
            if not connection.is_readable(wait_seconds):
                raise InDoubtError("local.cut-off", "no answer in time", op=op, seconds=wait_seconds)
            return connection.receive()
        except FleetError as error:
            if _is_broken_connection(error):
                self.close()
            raise

    def _connected(self) -> LocalClient:
        if self._owner_pid != os.getpid():
            self.close()  # our copy of the parent's; its own stays open
            self._owner_pid = os.getpid()
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> LocalClient:
        return LocalClient(self._path, self._timeout_seconds)

    # ---- an append whose answer was lost

    def _settle(self, request: AppendRequest, ends_at: float) -> AcceptedMessage:
        """Ask whoever answers at the socket until the append is settled; InDoubtError at the end."""
        while True:
            settled = self._find_if_reachable(request)
            if isinstance(settled, AcceptedMessage):
                return settled
            if settled is not None:
                raise settled
            if clock.monotonic() > ends_at:
                raise InDoubtError(
                    "log.in-doubt", "the log did not confirm the change", repository=request.repository
                )
            clock.sleep(SETTLE_PAUSE_SECONDS)

    def _find_if_reachable(self, request: AppendRequest) -> AcceptedMessage | TransientError | None:
        try:
            return self._find(request)
        except FleetError:
            return None  # nobody is there yet, or not able to say

    def _find(self, request: AppendRequest) -> AcceptedMessage | TransientError | None:
        """Return the message that the append became, None while that is open.

        An error is returned when it never will be one: another message has its seq, or an agent that has read
        a newer epoch behind it does not have it.
        """
        last = self.last(request.repository)
        if last.seq > request.base_seq:
            message = self.read(request.repository, request.base_seq, max_bytes=1).messages[0]
            if _is_same(request, decode_message(message.wire)):
                return _accepted(message)
            return TransientError("push.raced", "repository changed while pushing")
        outcome = outcome_of_earlier(False, append_epoch=request.epoch, serving_epoch=last.serving_epoch)
        if outcome is Outcome.REFUSED:
            return TransientError("log.agent-died", "the log agent died before it took the change")
        return None


class EventStream(Generic[T]):
    """Events as they come. A broken stream raises InDoubtError `local.cut-off`: connect again."""

    def __init__(self, connection: LocalClient, op: str, parse: Callable[[Frame], T], **fields: Any) -> None:
        self._connection = connection
        self._parse = parse
        connection.send({"op": op, **fields})

    def next_event(self, timeout_seconds: float | None = None) -> T | None:
        """Return the next event; None when none came in time."""
        if not self._connection.is_readable(timeout_seconds):
            return None
        return parse_with(self._parse, self._connection.receive())

    def __iter__(self) -> Iterator[T]:
        while (event := self.next_event()) is not None:
            yield event

    def close(self) -> None:
        """End the stream."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _is_broken_connection(error: FleetError) -> bool:
    return error.code in {"local.unreachable", "local.cut-off", "frame.damaged"}


def _is_same(request: AppendRequest, message: Message) -> bool:
    """Tell whether the message is what this append asked for; the agent added epoch and time."""
    envelope = message.envelope
    return (
        envelope.parent == request.base_digest
        and envelope.kind is request.kind
        and envelope.trace == request.trace
        and envelope.identity == request.identity
        and envelope.payload == request.payload
        and dict(envelope.body) == json.loads(json.dumps(dict(request.body)))
    )


def _accepted(message: LoggedMessage) -> AcceptedMessage:
    decoded = decode_message(message.wire)
    return AcceptedMessage(message.seq, decoded.digest, message.position, decoded.envelope.at)
