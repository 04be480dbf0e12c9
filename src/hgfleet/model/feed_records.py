r"""The feed's records and their versioned wire form: what the topic `pushdataaggregator` carries.

    hgfleet-feed/1\n<canonical JSON>

A record is an *entry*, one message of a repository or of the catalogue, or an *opening*: the beginning of one
writer's turn (model.feed tells what that is for).

Promises: decoding what was encoded gives the same record; whatever else the bytes are, it raises PoisonError
`feed.damaged` or `feed.too-new`.
Does not: carry payloads: who needs one has its digest and its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hgfleet.errors import PoisonError, RejectedError
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
    parse_digest,
    parse_repo_id,
)
from hgfleet.model.message import MAX_NUMBER, NO_PAYLOAD, Json, Message, PayloadRef

FORMAT = 1
OVERRUN = "overrun"  # an entry's kind: the log no longer has the messages from `after` + 1 to `seq`
_MAGIC = b"hgfleet-feed/"
_LEFT_OUT = frozenset({"fingerprint"})  # of a message's body: of use to copies only


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a turn; `life` is one run of a writer."""

    turn: int
    host: str
    life: str
    at: float


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One message, as far as whoever is notified of it needs it; the payload stays where it is."""

    turn: int
    number: int  # within the turn, from 1
    repository: RepoId  # CATALOGUE: a message of the catalogue
    seq: Seq
    after: Seq  # the entry before it of the same repository; less than seq - 1 only for OVERRUN
    kind: str  # a Kind's value, perhaps of a newer release, or OVERRUN
    path: str  # to which the repository is bound; "" for the catalogue
    at: float  # the message's own time: the date of the push
    digest: Digest = NO_DIGEST
    partition: Partition = Partition(0)
    position: Position = START  # in its partition of pushdata, or the catalogue, after it
    identity: str = ""
    trace: str = ""
    body: Mapping[str, Json] = field(default_factory=dict)
    payload: PayloadRef = NO_PAYLOAD


FeedRecord = Opening | FeedEntry


def entry_of(message: Message, position: Position, partition: Partition, path: str) -> FeedEntry:
    """Return the entry of a message that counts and lies just before `position`; its writer numbers it."""
    envelope = message.envelope
    return FeedEntry(
        turn=0,
        number=0,
        repository=envelope.repository,
        seq=envelope.seq,
        after=Seq(envelope.seq - 1),
        kind=envelope.kind.value,
        path=path,
        at=envelope.at,
        digest=message.digest,
        partition=partition,
        position=position,
        identity=envelope.identity,
        trace=envelope.trace,
        body={name: value for name, value in envelope.body.items() if name not in _LEFT_OUT},
        payload=envelope.payload,
    )


def encode_feed_record(record: FeedRecord) -> bytes:
    """Return the record's wire form, which is ASCII."""
    fields = _opening_fields(record) if isinstance(record, Opening) else _entry_fields(record)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return b"%s%d\n%s" % (_MAGIC, FORMAT, text.encode("ascii"))


def decode_feed_record(data: bytes) -> FeedRecord:
    """Parse and check a wire form."""
    line, _, text = data.partition(b"\n")
    version = line[len(_MAGIC) :]
    if not line.startswith(_MAGIC) or not version.isdigit() or len(version) > 9:
        raise _damaged("it does not start with a format line")
    if int(version) > FORMAT:
        raise PoisonError("feed.too-new", "feed record of a newer format", hint="upgrade this host")
    try:
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged("it is not JSON") from error
    if not isinstance(fields, dict):
        raise _damaged("it is not an object")
    return _parse_opening(fields) if fields.get("kind") == "opening" else _parse_entry(fields)


def _opening_fields(record: Opening) -> dict[str, Json]:
    return {
        "kind": "opening",
        "turn": record.turn,
        "host": record.host,
        "life": record.life,
        "at": record.at,
    }


def _entry_fields(record: FeedEntry) -> dict[str, Json]:
    return {
        "kind": record.kind,
        "turn": record.turn,
        "number": record.number,
        "repository": record.repository,
        "seq": record.seq,
        "after": record.after,
        "path": record.path,
        "at": record.at,
        "digest": record.digest,
        "partition": record.partition,
        "offset": record.position.offset,
        "epoch": record.position.epoch,
        "identity": record.identity,
        "trace": record.trace,
        "body": dict(record.body),
        "payload": {
            "size_bytes": record.payload.size_bytes,
            "sha256": record.payload.sha256,
            "is_inline": record.payload.is_inline,
        },
    }


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_opening(fields: Mapping[str, Any]) -> Opening:
    return Opening(_natural(fields, "turn"), _text(fields, "host"), _text(fields, "life"), _time(fields))


def _parse_entry(fields: Mapping[str, Any]) -> FeedEntry:
    entry = FeedEntry(
        turn=_natural(fields, "turn"),
        number=_natural(fields, "number"),
        repository=_checked(fields, "repository", parse_repo_id),
        seq=Seq(_natural(fields, "seq")),
        after=Seq(_natural(fields, "after")),
        kind=_text(fields, "kind"),
        path=_text(fields, "path"),
        at=_time(fields),
        digest=_checked(fields, "digest", parse_digest),
        partition=Partition(_natural(fields, "partition")),
        position=Position(Offset(_natural(fields, "offset")), Epoch(_natural(fields, "epoch"))),
        identity=_text(fields, "identity"),
        trace=_text(fields, "trace"),
        body=_typed(fields, "body", dict),
        payload=_parse_payload(_typed(fields, "payload", dict)),
    )
    if entry.after >= entry.seq:
        raise _damaged("it follows itself")
    return entry


def _parse_payload(fields: Mapping[str, Any]) -> PayloadRef:
    sha256 = _checked(fields, "sha256", parse_digest)
    return PayloadRef(_natural(fields, "size_bytes"), sha256, _typed(fields, "is_inline", bool))


def _typed(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    value = fields.get(name)
    if type(value) is not kind:
        raise _damaged(f"field {name!r} is missing or of the wrong type")
    return value


def _natural(fields: Mapping[str, Any], name: str) -> int:
    value: int = _typed(fields, name, int)
    if not 0 <= value <= MAX_NUMBER:
        raise _damaged(f"field {name!r} is negative or too large")
    return value


def _time(fields: Mapping[str, Any]) -> float:
    value = fields.get("at")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise _damaged("field 'at' is not a time")
    return float(value)


def _text(fields: Mapping[str, Any], name: str) -> str:
    """Return text that can be written down: JSON can also spell half a character."""
    value: str = _typed(fields, name, str)
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _damaged(f"field {name!r} is not text")
    return value


def _checked(fields: Mapping[str, Any], name: str, parse: Any) -> Any:
    try:
        return parse(_typed(fields, name, str))
    except RejectedError as error:
        raise _damaged(f"field {name!r} is not what it should be") from error


def _damaged(reason: str) -> PoisonError:
    return PoisonError("feed.damaged", f"damaged feed record: {reason}")
