r"""Messages of the replication log and their versioned wire form.

A message is one line that names the format, a JSON header of the length given there, and the payload that
the log carries inline (none when the payload lies in the blob store):

    hgfleet/1 <header bytes, decimal>\n<header, canonical JSON, UTF-8><payload>

The header names the payload's size and SHA-256, so the digest of the header bytes covers the whole envelope
and the payload without holding the payload in memory.

Promises: decode(encode(m)) == m; equal messages have equal bytes; whatever the bytes are, decoding either
returns a checked message or raises PoisonError, and a larger format number says so as `message.too-new`.
Does not: judge whether a message counts (model.acceptance) or what its payload means (model.payload).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.ids import (
    NO_DIGEST,
    Digest,
    Epoch,
    RepoId,
    Seq,
    parse_digest,
    parse_repo_id,
)

FORMAT = 1
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_NUMBER = 2**53  # every JSON reader keeps integers up to here
INLINE_LIMIT_BYTES = 256 * 1024
_MAGIC = b"hgfleet/"
_MAX_FIRST_LINE = 40

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Topic(StrEnum):
    """The four topics of the log."""

    CATALOGUE = "catalogue"
    PUSHDATA = "pushdata"
    STATE = "hgfleet-state"
    FEED = "pushdataaggregator"


class Kind(StrEnum):
    """What a message says; the comment names the topic it travels on."""

    EPOCH = "epoch"  # catalogue (the bid) and every pushdata partition; seq 0 in pushdata
    BIND = "bind"  # catalogue: path -> repository, and its partition
    UNBIND = "unbind"  # catalogue
    RENAME = "rename"  # catalogue
    SITE = "site"  # catalogue: fleet-wide settings
    CREATED = "created"  # pushdata, takes a seq, as the following five
    PUSH = "push"
    SETTINGS = "settings"
    RESET = "reset"
    DELETED = "deleted"
    VOID = "void"
    SNAPSHOT = "snapshot"  # pushdata, about a repository: takes no seq of its own, as the following two
    BUNDLES = "bundles"
    CHECKPOINT = "checkpoint"


SEQUENCED = frozenset({Kind.CREATED, Kind.PUSH, Kind.SETTINGS, Kind.RESET, Kind.DELETED, Kind.VOID})
CATALOGUE_KINDS = frozenset({Kind.EPOCH, Kind.BIND, Kind.UNBIND, Kind.RENAME, Kind.SITE})


@dataclass(frozen=True, slots=True)
class PayloadRef:
    """A payload by size and SHA-256; `is_inline` tells whether the message carries it."""

    size_bytes: int
    sha256: Digest
    is_inline: bool


NO_PAYLOAD = PayloadRef(0, NO_DIGEST, True)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything about a message except its payload's bytes."""

    kind: Kind
    repository: RepoId  # CATALOGUE on the catalogue topic and for a partition's epoch messages
    seq: Seq  # the message's own for sequenced kinds; the seq it is about for kinds without one
    parent: Digest  # of the last accepted message of that repository; "" for the first
    epoch: Epoch
    at: float  # Unix seconds, clock of the appending host
    identity: str  # the account or `host:<name>` that caused it
    trace: str  # one id from the gate to the notification
    body: Mapping[str, Json] = field(
        default_factory=dict
    )  # what the kind needs; see docs/reference/messages.md
    payload: PayloadRef = NO_PAYLOAD


@dataclass(frozen=True, slots=True)
class Message:
    """An envelope, the header bytes it was read from, and the inline payload."""

    envelope: Envelope
    header: bytes
    payload: bytes

    @property
    def digest(self) -> Digest:
        """SHA-256 of the header, which names the payload's digest: the whole envelope is covered."""
        return Digest(hashlib.sha256(self.header).hexdigest())


def payload_ref(payload: bytes) -> PayloadRef:
    """Describe a payload that travels inline."""
    if not payload:
        return NO_PAYLOAD
    return PayloadRef(len(payload), Digest(hashlib.sha256(payload).hexdigest()), True)


def make_message(envelope: Envelope, payload: bytes = b"") -> Message:
    """Build a message from its envelope; `payload` must be what the envelope names as inline."""
    return Message(envelope, _format_header(envelope), payload)


def encode_message(message: Message) -> bytes:
    """Return the message's wire form."""
    return b"%s%d %d\n%s%s" % (_MAGIC, FORMAT, len(message.header), message.header, message.payload)


def decode_message(data: bytes) -> Message:
    """Parse and check a wire form; raise PoisonError `message.damaged` or `message.too-new`."""
    header_start, header_size = _parse_first_line(data)
    header_end = header_start + header_size
    if header_end > len(data):
        raise _damaged("the header is cut off")
    header, payload = bytes(data[header_start:header_end]), bytes(data[header_end:])
    envelope = _parse_header(header)
    _check_payload(envelope.payload, payload)
    return Message(envelope, header, payload)


def _parse_first_line(data: bytes) -> tuple[int, int]:
    line, newline, _ = data[:_MAX_FIRST_LINE].partition(b"\n")
    words = line[len(_MAGIC) :].split(b" ")
    if not newline or not line.startswith(_MAGIC) or len(words) != 2 or not all(w.isdigit() for w in words):
        raise _damaged("it does not start with a format line")
    if int(words[0]) < 1:
        raise _damaged("there is no such format")
    if int(words[0]) > FORMAT:
        raise PoisonError(
            "message.too-new",
            "message of a newer format",
            hint="upgrade this host",
            format=int(words[0]),
        )
    size = int(words[1])
    if size > MAX_HEADER_BYTES:
        raise _damaged("the header is too large")
    return len(line) + 1, size


def _check_payload(ref: PayloadRef, payload: bytes) -> None:
    if not ref.is_inline:
        if not ref.sha256:
            raise _damaged("the payload lies elsewhere and is not named")
        if payload:
            raise _damaged("bytes follow a message whose payload lies elsewhere")
        return
    if len(payload) != ref.size_bytes:
        raise _damaged("the payload's size is not the one in the header")
    if payload and hashlib.sha256(payload).hexdigest() != ref.sha256:
        raise _damaged("the payload's digest is not the one in the header")


def _format_header(envelope: Envelope) -> bytes:
    fields: dict[str, Json] = {
        "kind": envelope.kind.value,
        "repository": envelope.repository,
        "seq": envelope.seq,
        "parent": envelope.parent,
        "epoch": envelope.epoch,
        "at": envelope.at,
        "identity": envelope.identity,
        "trace": envelope.trace,
        "body": dict(envelope.body),
        "payload": {
            "size_bytes": envelope.payload.size_bytes,
            "sha256": envelope.payload.sha256,
            "is_inline": envelope.payload.is_inline,
        },
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _parse_header(header: bytes) -> Envelope:
    try:
        fields = json.loads(header, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged("the header is not JSON") from error
    if not isinstance(fields, dict):
        raise _damaged("the header is not an object")
    return _envelope(_Fields(fields))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _envelope(fields: _Fields) -> Envelope:
    payload = _Fields(fields.take("payload", dict))
    return Envelope(
        kind=_parse_kind(fields),
        repository=fields.checked("repository", parse_repo_id),
        seq=Seq(fields.natural("seq")),
        parent=fields.checked("parent", parse_digest),
        epoch=Epoch(fields.natural("epoch")),
        at=fields.time("at"),
        identity=fields.text("identity"),
        trace=fields.text("trace"),
        body=cast("dict[str, Json]", fields.take("body", dict)),
        payload=PayloadRef(
            size_bytes=payload.natural("size_bytes"),
            sha256=payload.checked("sha256", parse_digest),
            is_inline=payload.take("is_inline", bool),
        ),
    )


def _parse_kind(fields: _Fields) -> Kind:
    """Parse the kind; the error for an unknown one names the repository and the epoch, to park only that."""
    name = fields.text("kind")
    try:
        return Kind(name)
    except ValueError as error:
        raise PoisonError(
            "message.too-new",
            "message of an unknown kind",
            hint="upgrade this host",
            kind=name,
            repository=fields.checked("repository", parse_repo_id),
            epoch=Epoch(fields.natural("epoch")),
        ) from error


class _Fields:
    """Typed access to a parsed object; everything unexpected is a damaged message."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def take(self, name: str, kind: Any) -> Any:
        value = self._values.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _damaged(f"field {name!r} is missing or of the wrong type")
        return value

    def natural(self, name: str) -> int:
        value = self.take(name, int)
        if not 0 <= value <= MAX_NUMBER:
            raise _damaged(f"field {name!r} is negative or too large")
        return cast("int", value)

    def time(self, name: str) -> float:
        value = self.take(name, (int, float))
        if not abs(value) <= MAX_NUMBER:
            raise _damaged(f"field {name!r} is not a time")
        return float(value)

    def text(self, name: str) -> str:
        """Return text that can be written down: JSON can also spell half a character."""
        value = cast("str", self.take(name, str))
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            raise _damaged(f"field {name!r} is not text")
        return value

    def checked(self, name: str, parse: Any) -> Any:
        try:
            return parse(self.take(name, str))
        except RejectedError as error:
            raise _damaged(f"field {name!r} is not what it should be") from error


def _damaged(reason: str) -> PoisonError:
    return PoisonError("message.damaged", f"damaged message: {reason}")
