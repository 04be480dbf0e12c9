"""What the log agent's clients ask and hear, as typed values (docs/design/local-protocols.md).

Promises: an answer's fields become one of these or InvariantError `local.bad-answer`.
Does not: talk to the agent (agent_client).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hgfleet import errors
from hgfleet.errors import FleetError, InDoubtError, InvariantError, TransientError
from hgfleet.model.frames import Frame
from hgfleet.model.ids import Digest, Epoch, Offset, Partition, Position, RepoId, RepoPath, Seq
from hgfleet.model.message import NO_PAYLOAD, Json, Kind, PayloadRef

T = TypeVar("T")
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AgentHello:
    """Which agent answers; `life` is one run of it, `epoch` the one it holds (0: standby)."""

    release: str
    host: str
    life: str
    log_id: str
    epoch: Epoch
    is_serving: bool  # it accepts changes in every partition
    partitions: int


@dataclass(frozen=True, slots=True)
class LastMessage:
    """The end of a repository's sequence, as the agent has read it; seq 0 while there is nothing."""

    seq: Seq
    digest: Digest
    position: Position  # after it
    partition: Partition | None  # None: nothing is known of such a repository
    is_deleted: bool
    is_unsettled: bool  # an append is in doubt
    serving_epoch: Epoch  # under which the agent accepts changes of it; 0: it does not
    parked: str  # why its messages cannot be read on; "" in health


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """One change on top of (base_seq, base_digest), wanted under the epoch that came with them."""

    repository: RepoId
    base_seq: Seq
    base_digest: Digest
    epoch: Epoch  # LastMessage.serving_epoch
    kind: Kind
    body: Mapping[str, Json]
    identity: str
    trace: str  # tells this change from every other on the same base
    payload: PayloadRef = NO_PAYLOAD
    inline: bytes = field(default=b"", repr=False)

    def to_fields(self) -> dict[str, Any]:
        """Return the request's header fields."""
        payload = self.payload
        return {
            "repository": self.repository,
            "base_seq": self.base_seq,
            "base_digest": self.base_digest,
            "epoch": self.epoch,
            "kind": self.kind.value,
            "body": dict(self.body),
            "identity": self.identity,
            "trace": self.trace,
            "payload": {
                "size_bytes": payload.size_bytes,
                "sha256": payload.sha256,
                "is_inline": payload.is_inline,
            },
        }


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """The whole state of a copy that is ahead of its log, which ends at (base_seq, base_digest).

    `path` and `partition` are used where the log does not know the repository any more.
    """

    repository: RepoId
    path: RepoPath
    partition: Partition
    base_seq: Seq
    base_digest: Digest
    body: Mapping[str, Json]  # of the `reset`
    identity: str
    trace: str
    payload: PayloadRef
    inline: bytes = field(default=b"", repr=False)

    def to_fields(self) -> dict[str, Any]:
        """Return the request's header fields."""
        fields = {name: getattr(self, name) for name in ("repository", "path", "partition", "base_seq")}
        payload = {name: getattr(self.payload, name) for name in ("size_bytes", "sha256", "is_inline")}
        return fields | {
            "base_digest": self.base_digest,
            "body": dict(self.body),
            "identity": self.identity,
            "trace": self.trace,
            "payload": payload,
        }


@dataclass(frozen=True, slots=True)
class NamedSnapshot:
    """A snapshot in force, as its message names it."""

    seq: Seq
    digest: Digest  # of the message at seq
    state_digest: Digest
    changesets: int
    blob: PayloadRef
    at: float  # Unix seconds
    host: str  # that made it


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that counts, for ever."""

    seq: Seq
    digest: Digest
    position: Position  # after it
    at: float


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """A message that counts, as read: its wire form and the position after it."""

    seq: Seq
    position: Position
    wire: bytes


@dataclass(frozen=True, slots=True)
class MessageBatch:
    """Some messages in seq order; `last_seq` is the end of the sequence, which they may not reach."""

    messages: tuple[LoggedMessage, ...]
    last_seq: Seq


@dataclass(frozen=True, slots=True)
class BoundPath:
    """A path and where it leads."""

    path: RepoPath
    repository: RepoId
    partition: Partition


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """What a change of the catalogue did; it counts at `catalogue_seq`."""

    repository: RepoId
    catalogue_seq: Seq
    partition: Partition


@dataclass(frozen=True, slots=True)
class Visibility:
    """Whether every mirror in service shows a seq; their names, and those that do not yet."""

    is_visible: bool
    mirrors: tuple[str, ...]
    late: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateItem:
    """One record of the state topic; `value` None: the key was removed."""

    key: str
    value: Any
    offset: Offset  # its own
    at: float


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record of any topic as it stands in the log, counting or not."""

    offset: Offset
    next_offset: Offset
    key: str
    value: bytes
    at: float


@dataclass(frozen=True, slots=True)
class RepoStanding:
    """A repository in a follower's snapshot."""

    partition: Partition
    seq: Seq
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class LogSnapshot:
    """The first event of follow(): everything that counts so far."""

    catalogue_seq: Seq
    repositories: Mapping[RepoId, RepoStanding]


@dataclass(frozen=True, slots=True)
class Advanced:
    """A repository has messages up to `seq`; a slow follower hears of the last only."""

    repository: RepoId  # CATALOGUE: the catalogue
    seq: Seq
    partition: Partition


@dataclass(frozen=True, slots=True)
class StateRecords:
    """Records of the state topic, in offset order."""

    records: tuple[StateItem, ...]


@dataclass(frozen=True, slots=True)
class StateEnd:
    """What stood in the state topic when the stream began has been sent."""

    offset: Offset


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One record of the feed as it stands in the log, counting or not."""

    offset: Offset
    next_offset: Offset
    wire: bytes
    at: float


@dataclass(frozen=True, slots=True)
class FeedItems:
    """Records of the feed, in offset order."""

    items: tuple[FeedItem, ...]


@dataclass(frozen=True, slots=True)
class FeedEnd:
    """What the feed held when the stream began has been sent."""

    offset: Offset


@dataclass(frozen=True, slots=True)
class FeedRestart:
    """The feed has nothing at the offset where the reader is: it goes on from this one, its first."""

    offset: Offset


FollowEvent = LogSnapshot | Advanced
StateEvent = StateRecords | StateEnd
FeedEvent = FeedItems | FeedEnd | FeedRestart


def parse_with(parse: Callable[[Frame], T], frame: Frame) -> T:
    """Parse an answer; an agent that leaves fields out is of another release or broken."""
    try:
        return parse(frame)
    except (KeyError, TypeError, ValueError) as error:
        raise InvariantError(
            "local.bad-answer", "the log agent's answer lacks something", reason=repr(error)
        ) from error


def parse_hello(frame: Frame) -> AgentHello:
    """Parse the answer of `hello`."""
    fields = frame.header
    return AgentHello(
        release=fields["release"],
        host=fields["host"],
        life=fields["life"],
        log_id=fields["log_id"],
        epoch=Epoch(fields["epoch"]),
        is_serving=fields["is_serving"],
        partitions=fields["partitions"],
    )


def parse_last(frame: Frame) -> LastMessage:
    """Parse the answer of `last`."""
    fields = frame.header
    partition = fields["partition"]
    return LastMessage(
        seq=Seq(fields["seq"]),
        digest=Digest(fields["digest"]),
        position=_position(fields),
        partition=None if partition is None else Partition(partition),
        is_deleted=fields["is_deleted"],
        is_unsettled=fields["is_unsettled"],
        serving_epoch=Epoch(fields["serving_epoch"]),
        parked=fields["parked"],
    )


def parse_snapshots(frame: Frame) -> tuple[NamedSnapshot, ...]:
    """Parse the answer to `snapshots`."""
    return tuple(
        NamedSnapshot(
            seq=Seq(item["seq"]),
            digest=Digest(item["digest"]),
            state_digest=Digest(item["state_digest"]),
            changesets=item["changesets"],
            blob=PayloadRef(item["size_bytes"], Digest(item["sha256"]), False),
            at=item["at"],
            host=item["host"],
        )
        for item in frame.header["snapshots"]
    )


def parse_due(frame: Frame) -> tuple[RepoId, ...]:
    """Parse the answer to `snapshots_due`."""
    return tuple(RepoId(item["repository"]) for item in frame.header["due"])


def payload_fields(payload: PayloadRef) -> dict[str, Any]:
    """Return a payload's fields in a request."""
    return {name: getattr(payload, name) for name in ("size_bytes", "sha256", "is_inline")}


def parse_outcome(frame: Frame) -> AcceptedMessage:
    """Parse the answer of `append`; raise what a refusal names, or InDoubtError."""
    fields = frame.header
    outcome = fields["outcome"]
    if outcome == "in_doubt":
        raise InDoubtError("log.in-doubt", "the log did not confirm the change", reason=fields["reason"])
    if outcome == "refused":
        raise _refusal(fields)
    return AcceptedMessage(Seq(fields["seq"]), Digest(fields["digest"]), _position(fields), fields["at"])


def _refusal(fields: Fields) -> FleetError:
    kind = errors.RejectedError if fields["class"] == "RejectedError" else TransientError
    return kind(fields["code"], fields["reason"], hint=fields["hint"])


def parse_batch(frame: Frame) -> MessageBatch:
    """Parse the answer of `read` and `catalogue`."""
    items = frame.header["messages"]
    messages = tuple(
        LoggedMessage(Seq(item["seq"]), _position(item), wire)
        for item, wire in zip(items, _cut(frame.body, items), strict=True)
    )
    return MessageBatch(messages, Seq(frame.header["last_seq"]))


def parse_bound_path(fields: Fields) -> BoundPath:
    """Parse one path."""
    return BoundPath(RepoPath(fields["path"]), RepoId(fields["repository"]), Partition(fields["partition"]))


def parse_paths(frame: Frame) -> tuple[tuple[BoundPath, ...], Seq]:
    """Parse the answer of `paths`."""
    paths = tuple(parse_bound_path(item) for item in frame.header["paths"])
    return paths, Seq(frame.header["seq"])


def parse_catalogue_change(frame: Frame) -> CatalogueChange:
    """Parse the answer of `create`, `delete` and `rename`."""
    fields = frame.header
    return CatalogueChange(
        RepoId(fields["repository"]), Seq(fields["catalogue_seq"]), Partition(fields["partition"])
    )


def parse_visibility(frame: Frame) -> Visibility:
    """Parse the answer of `wait_visible`."""
    fields = frame.header
    return Visibility(fields["is_visible"], tuple(fields["mirrors"]), tuple(fields["late"]))


def parse_records(frame: Frame) -> tuple[RawRecord, ...]:
    """Parse the answer of `records`."""
    items = frame.header["records"]
    return tuple(
        RawRecord(Offset(item["offset"]), Offset(item["next_offset"]), item["key"], value, item["at"])
        for item, value in zip(items, _cut(frame.body, items), strict=True)
    )


def parse_follow_event(frame: Frame) -> FollowEvent:
    """Parse one event of `follow`."""
    fields = frame.header
    if fields["event"] == "advanced":
        return Advanced(RepoId(fields["repository"]), Seq(fields["seq"]), Partition(fields["partition"]))
    repositories = {
        RepoId(name): RepoStanding(Partition(item["partition"]), Seq(item["seq"]), item["is_deleted"])
        for name, item in fields["repositories"].items()
    }
    return LogSnapshot(Seq(fields["catalogue_seq"]), repositories)


def parse_state_event(frame: Frame) -> StateEvent:
    """Parse one event of `state_follow`."""
    fields = frame.header
    if fields["event"] == "end":
        return StateEnd(Offset(fields["offset"]))
    return StateRecords(
        tuple(
            StateItem(item["key"], item["value"], Offset(item["offset"]), item["at"])
            for item in fields["records"]
        )
    )


def parse_feed_event(frame: Frame) -> FeedEvent:
    """Parse one event of `feed_follow`."""
    fields = frame.header
    match fields["event"]:
        case "end":
            return FeedEnd(Offset(fields["offset"]))
        case "restart":
            return FeedRestart(Offset(fields["offset"]))
        case _:
            return FeedItems(tuple(_feed_item(item) for item in fields["records"]))


def _feed_item(item: Fields) -> FeedItem:
    return FeedItem(
        Offset(item["offset"]), Offset(item["next_offset"]), item["value"].encode("utf-8"), item["at"]
    )


def _position(fields: Fields) -> Position:
    return Position(Offset(fields["offset"]), Epoch(fields["epoch"]))


def _cut(body: bytes, items: list[Fields]) -> Iterator[bytes]:
    """Cut a body into the pieces whose sizes the items name."""
    if sum(item["size_bytes"] for item in items) != len(body):
        raise ValueError("the body is not as long as its parts")
    start = 0
    for item in items:
        end = start + item["size_bytes"]
        yield body[start:end]
        start = end
