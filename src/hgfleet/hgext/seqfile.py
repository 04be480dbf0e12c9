"""The file that ties a copy to its log: which message was the last one applied, and what it left.

`.hg/store/hgfleet-seq` has a line of JSON per transaction, of which the last whole one counts, and is begun
anew when it is long. It is part of Mercurial's transaction: an abort, a rollback or a recovery brings back
the line that fits the changesets. Lines are added because replacing a small file (another one, its backup, a
rename) costs more than all else that a small push writes. Nothing here needs Mercurial, so that any process
can read it.

Promises: what is read was written whole, by one transaction; a damaged file is a PoisonError
`seqfile.damaged`.
Does not: judge whether the copy is behind, ahead or altered (hgext.recovery).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
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
from hgfleet.model.settings import RepoSettings, parse_repo_settings
from hgfleet.model.state import Fingerprint, last_record, parse_fingerprint

NAME = "hgfleet-seq"
MOST_BYTES = 32 * 1024  # of a file that gets one more line
_READ_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class SeqState:
    """What a copy is the result of."""

    repository: RepoId
    partition: Partition
    seq: Seq = Seq(0)
    digest: Digest = NO_DIGEST  # of the message at seq
    position: Position = START  # after the message at seq
    fingerprint: Fingerprint = Fingerprint()
    settings: RepoSettings = RepoSettings()

    def advanced(self, **changes: Any) -> SeqState:
        """Return the state after another message."""
        return replace(self, **changes)


def read(root: str | Path, *, is_locked: bool = False) -> SeqState | None:
    """Read the file of the repository whose working directory would be `root`; None when there is none.

    Where the caller holds the repository's lock nobody is writing, and a line without its end is damage.
    """
    try:
        data = _read_bytes(os.path.join(root, ".hg", "store", NAME))
    except FileNotFoundError:
        return None
    if is_locked and not data.endswith(b"\n"):
        raise PoisonError("seqfile.damaged", "the repository's seq file is damaged")
    return parse(data)


def _read_bytes(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _READ_BYTES)
        while len(data) >= _READ_BYTES and (more := os.read(descriptor, _READ_BYTES)):
            data += more
    finally:
        os.close(descriptor)
    return data


def parse(data: bytes) -> SeqState:
    """Return the state that the file's bytes tell."""
    return _parse_record(last_record(data))


@lru_cache(maxsize=256)
def _parse_record(data: bytes) -> SeqState:
    """Parse one record; the same one is read several times around each change."""
    try:
        return _parse_fields(json.loads(data))
    except (ValueError, TypeError, KeyError, RejectedError) as error:
        raise PoisonError("seqfile.damaged", "the repository's seq file is damaged") from error


def format_state(state: SeqState) -> bytes:
    """Return a new file's bytes, which are also what a longer one gets."""
    fields = {
        "repository": state.repository,
        "partition": state.partition,
        "seq": state.seq,
        "digest": state.digest,
        "offset": state.position.offset,
        "epoch": state.position.epoch,
        "fingerprint": state.fingerprint.to_json(),
        "settings": state.settings.to_json(),
    }
    return json.dumps(fields, sort_keys=True).encode("ascii") + b"\n"


def append(tr: Any, path: bytes, state: SeqState) -> bool:
    """Add the state's line within the transaction, which notes where the file ended.

    False: nothing was done, for the file is long, or has another name, by which a backup would be changed.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_size > MOST_BYTES or status.st_nlink != 1:
            return False
        tr.add(NAME.encode(), status.st_size)
        _write_all(descriptor, format_state(state))
    finally:
        os.close(descriptor)
    return True


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def replace_in(tr: Any, state: SeqState) -> None:
    """Have the transaction write the file anew, with the files that it writes last."""
    data = format_state(state)
    tr.addfilegenerator(
        b"zzz-hgfleet-seq", (NAME.encode(),), lambda file: file.write(data), post_finalize=True
    )


def _parse_fields(fields: dict[str, Any]) -> SeqState:
    return SeqState(
        repository=parse_repo_id(fields["repository"]),
        partition=Partition(int(fields["partition"])),
        seq=Seq(int(fields["seq"])),
        digest=parse_digest(fields["digest"]),
        position=Position(Offset(int(fields["offset"])), Epoch(int(fields["epoch"]))),
        fingerprint=parse_fingerprint(fields["fingerprint"]),
        settings=parse_repo_settings(fields["settings"]),
    )
