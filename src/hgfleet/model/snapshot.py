r"""Snapshots: what the message about one says, and the wire form of the blob that it names.

    hgfleet-snapshot/1 <header bytes, decimal>\n<header, JSON><payload>

The payload is that of a `reset` (model.payload): the whole state. The header ties it to its place in the log;
whoever restores it goes on with the message after `seq`, under the epoch of `position`.

Promises: reading what was written gives the same header; whatever else the bytes are, reading raises
PoisonError `snapshot.damaged` or `snapshot.too-new`, and nothing else.
Does not: know Mercurial (hgext.snapshot), or say which snapshots are in force (model.standing).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.ids import (
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
from hgfleet.model.message import Json, Message, PayloadRef
from hgfleet.model.payload import Source, Target
from hgfleet.model.settings import RepoSettings, parse_repo_settings
from hgfleet.model.state import Fingerprint, parse_fingerprint

FORMAT = 1
MAX_HEADER_BYTES = 1024 * 1024
_MAGIC = b"hgfleet-snapshot/"
_MAX_FIRST_LINE = 40


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """Whose state it is, and at which place of the log."""

    repository: RepoId
    partition: Partition
    seq: Seq
    digest: Digest  # of the message at seq
    position: Position  # after that message
    fingerprint: Fingerprint
    settings: RepoSettings
    state_digest: Digest  # what hgext.state_digest says of a copy that was restored from it
    requirements: tuple[str, ...]  # of the copy that it was made from
    made_at: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "repository": self.repository,
            "partition": self.partition,
            "seq": self.seq,
            "digest": self.digest,
            "offset": self.position.offset,
            "epoch": self.position.epoch,
            "fingerprint": self.fingerprint.to_json(),
            "settings": self.settings.to_json(),
            "state_digest": self.state_digest,
            "requirements": list(self.requirements),
            "made_at": self.made_at,
        }


def parse_header(fields: Any) -> SnapshotHeader:
    """Check the JSON form; raise PoisonError `snapshot.damaged`."""
    try:
        return _header(fields)
    except (KeyError, TypeError, ValueError, RejectedError, PoisonError) as error:
        raise damaged("its header is not what it should be") from error


def _header(fields: Mapping[str, Any]) -> SnapshotHeader:
    numbers = [fields[name] for name in ("partition", "seq", "offset", "epoch")]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a number is none")
    partition, seq, offset, epoch = numbers
    return SnapshotHeader(
        repository=parse_repo_id(fields["repository"]),
        partition=Partition(partition),
        seq=Seq(seq),
        digest=_full_digest(fields["digest"]),
        position=Position(Offset(offset), Epoch(epoch)),
        fingerprint=parse_fingerprint(fields["fingerprint"]),
        settings=parse_repo_settings(fields["settings"]),
        state_digest=_full_digest(fields["state_digest"]),
        requirements=tuple(str(name) for name in fields["requirements"]),
        made_at=float(fields["made_at"]),
    )


def _full_digest(text: Any) -> Digest:
    if not isinstance(text, str) or not text:
        raise ValueError("a digest is missing")
    return parse_digest(text)


def write_header(target: Target, header: SnapshotHeader) -> None:
    """Write the head of a snapshot; its payload follows."""
    data = json.dumps(header.to_json(), sort_keys=True, separators=(",", ":")).encode("ascii")
    target.write(b"%s%d %d\n" % (_MAGIC, FORMAT, len(data)) + data)


def read_header(source: Source) -> SnapshotHeader:
    """Read the head; the source stands at the payload then."""
    size = _read_first_line(source)
    data = b""
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            raise damaged("it is cut off")
        data += more
    try:
        return parse_header(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise damaged("its header is not JSON") from error


def _read_first_line(source: Source) -> int:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_FIRST_LINE:
        more = source.read(1)
        if not more:
            break
        line += more
    words = line[len(_MAGIC) : -1].split(b" ")
    is_line = line.startswith(_MAGIC) and line.endswith(b"\n")
    if not is_line or len(words) != 2 or not all(word.isdigit() for word in words):
        raise damaged("it does not start with a format line")
    if int(words[0]) != FORMAT:
        raise PoisonError("snapshot.too-new", "snapshot of an unknown format", hint="upgrade this host")
    if int(words[1]) > MAX_HEADER_BYTES:
        raise damaged("its header is too large")
    return int(words[1])


def damaged(reason: str) -> PoisonError:
    """Return the error for bytes that are no snapshot."""
    return PoisonError("snapshot.damaged", f"damaged snapshot: {reason}")


# ---- the message


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as its message names it."""

    repository: RepoId
    seq: Seq
    digest: Digest  # of the message at seq
    as_of: Offset  # up to here the partition had no later message of the repository, or it was not looked
    state_digest: Digest
    changesets: int
    blob: PayloadRef
    at: float
    host: str  # that made it

    @property
    def rank(self) -> tuple[Seq, Offset]:
        """What decides which of two is in force."""
        return self.seq, self.as_of


def snapshot_body(header: SnapshotHeader, as_of: Offset, host: str) -> dict[str, Json]:
    """Return the body of the `snapshot` message."""
    return {
        "digest": header.digest,
        "as_of": as_of,
        "state_digest": header.state_digest,
        "changesets": header.fingerprint.changelog_length,
        "host": host,
    }


def parse_snapshot(message: Message) -> Snapshot:
    """Check a `snapshot` message; raise PoisonError `message.damaged`."""
    envelope, body = message.envelope, message.envelope.body
    try:
        as_of, changesets = body["as_of"], body["changesets"]
        if type(as_of) is not int or type(changesets) is not int or min(as_of, changesets) < 0:
            raise ValueError("a number is none")
        if envelope.payload.is_inline:
            raise ValueError("it names no blob")
        return Snapshot(
            repository=envelope.repository,
            seq=envelope.seq,
            digest=_full_digest(body["digest"]),
            as_of=Offset(as_of),
            state_digest=_full_digest(body["state_digest"]),
            changesets=changesets,
            blob=envelope.payload,
            at=envelope.at,
            host=str(body["host"]),
        )
    except (KeyError, ValueError, RejectedError) as error:
        raise PoisonError("message.damaged", "damaged message: it describes no snapshot") from error
