r"""What a partition's beginning has told: the fold of all its records below one offset, to be written down.

Retention removes the beginning of a partition. A reader that starts behind it cannot tell from what is left
who is at which seq, or which epoch is in force: guessed from the first message, a former primary's message
would count for it and for nobody else. So before anything is removed, what it said is written into the
partition itself, as a `checkpoint` message that names a blob of this form (docs/adr/0004).

    hgfleet-partition/1\n<canonical JSON>

Promises: a fold is a function of the records below its offset alone, so whoever writes it down, a former
primary included, writes the same; a reader that goes on from it decides as one that has read everything.
Does not: read the log or find the message (replication.agent_start).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.acceptance import PartitionReader, RepoHead, Verdict
from hgfleet.model.ids import (
    CATALOGUE,
    Epoch,
    Offset,
    Partition,
    Position,
    RepoId,
    Seq,
    parse_digest,
    parse_repo_id,
)
from hgfleet.model.message import Json, Kind, Message, PayloadRef, decode_message, encode_message
from hgfleet.model.standing import Standings

_FIRST_LINE = b"hgfleet-partition/1\n"


class PartitionFold:
    """The fold of one partition: its reader, and what is in force about its repositories."""

    def __init__(self, reader: PartitionReader | None = None, standings: Standings | None = None) -> None:
        self.reader = reader or PartitionReader()
        self.standings = standings or Standings()

    def take(self, message: Message, next_offset: Offset) -> Verdict:
        """Take the record at the position."""
        verdict = self.reader.take(message, next_offset)
        repository = message.envelope.repository
        if repository != CATALOGUE:
            self.standings.take(message, verdict, self.reader.head(repository))
        return verdict

    def take_unreadable(self, next_offset: Offset, error: PoisonError) -> Verdict:
        """Take a record that could not be decoded, `error` says why."""
        repository, epoch = error.context.get("repository"), error.context.get("epoch")
        return self.reader.take_unreadable(
            next_offset,
            str(error),
            RepoId(repository) if isinstance(repository, str) else None,
            Epoch(epoch) if isinstance(epoch, int) else None,
        )


def format_fold(state: PartitionFold) -> bytes:
    """Return the fold's bytes: equal folds have equal bytes."""
    reader = state.reader
    fields = {
        "offset": reader.position.offset,
        "epoch": reader.position.epoch,
        "heads": {repository: _head_fields(head) for repository, head in reader.heads.items()},
        "parked": dict(reader.parked),
        "standing": [
            encode_message(message).decode("ascii")
            for _repository, standing in sorted(state.standings, key=lambda item: item[0])
            for message in standing.messages
        ],
    }
    return _FIRST_LINE + json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii")


def parse_fold(data: bytes) -> PartitionFold:
    """Parse the bytes; raise PoisonError `partition.damaged` or `partition.too-new`."""
    if not data.startswith(_FIRST_LINE):
        if data.startswith(b"hgfleet-partition/"):
            raise PoisonError("partition.too-new", "checkpoint of a newer format", hint="upgrade this host")
        raise _damaged()
    try:
        return _state(json.loads(data[len(_FIRST_LINE) :]))
    except (ValueError, TypeError, KeyError, RecursionError, RejectedError, PoisonError) as error:
        raise _damaged() from error


def _damaged() -> PoisonError:
    return PoisonError("partition.damaged", "damaged checkpoint of a partition")


def _state(fields: Mapping[str, Any]) -> PartitionFold:
    standings = Standings()
    for wire in fields["standing"]:
        standings.put_back(decode_message(wire.encode("ascii")))
    reader = PartitionReader(
        Position(Offset(_natural(fields["offset"])), Epoch(_natural(fields["epoch"]))),
        {parse_repo_id(repository): _head(*values) for repository, values in fields["heads"].items()},
        {parse_repo_id(repository): str(reason) for repository, reason in fields["parked"].items()},
    )
    return PartitionFold(reader, standings)


def _head_fields(head: RepoHead) -> list[Json]:
    return [
        head.seq,
        head.digest,
        head.position.offset,
        head.position.epoch,
        head.is_created,
        head.is_deleted,
    ]


def _head(seq: Any, digest: Any, offset: Any, epoch: Any, is_created: Any, is_deleted: Any) -> RepoHead:
    return RepoHead(
        seq=Seq(_natural(seq)),
        digest=parse_digest(digest),
        position=Position(Offset(_natural(offset)), Epoch(_natural(epoch))),
        is_created=bool(is_created),
        is_deleted=bool(is_deleted),
    )


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a number is none")
    return value


# ---- the message


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A partition's checkpoint as its message names it; `offset` is where its fold ends."""

    offset: Offset
    blob: PayloadRef


def checkpoint_body(partition: Partition, offset: Offset) -> dict[str, Json]:
    """Return the body of a partition's `checkpoint` message."""
    return {"partition": partition, "offset": offset}


def parse_checkpoint(message: Message) -> Checkpoint | None:
    """Return the partition's checkpoint that a message names; None when it names none."""
    envelope = message.envelope
    offset = envelope.body.get("offset")
    if envelope.kind is not Kind.CHECKPOINT or envelope.repository != CATALOGUE or envelope.payload.is_inline:
        return None
    return Checkpoint(Offset(offset), envelope.payload) if type(offset) is int and offset >= 0 else None
