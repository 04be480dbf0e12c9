"""The file that ties a copy to its log: which message was the last one applied, and what it left.

`.hg/store/hgfleet-seq` is JSON and part of Mercurial's transaction: an abort, a rollback or a recovery brings
back the one that fits the changesets. Nothing here needs Mercurial, so that any process can read it.

Promises: what is read was written whole, by one transaction; a damaged file is a PoisonError
`seqfile.damaged`.
Does not: judge whether the copy is behind, ahead or altered (hgext.recovery).
"""

from __future__ import annotations

import json
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
from hgfleet.model.state import Fingerprint, parse_fingerprint

NAME = "hgfleet-seq"


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


def read(root: str | Path) -> SeqState | None:
    """Read the file of the repository whose working directory would be `root`; None when there is none."""
    try:
        data = Path(root, ".hg", "store", NAME).read_bytes()
    except FileNotFoundError:
        return None
    return parse(data)


@lru_cache(maxsize=256)
def parse(data: bytes) -> SeqState:
    """Parse the file's bytes; the same ones are read several times around each change."""
    try:
        return _parse_fields(json.loads(data))
    except (ValueError, TypeError, KeyError, RejectedError) as error:
        raise PoisonError("seqfile.damaged", "the repository's seq file is damaged") from error


def format_state(state: SeqState) -> bytes:
    """Return the file's bytes."""
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
    return json.dumps(fields, sort_keys=True, indent=1).encode("ascii") + b"\n"


def schedule(tr: Any, state: SeqState) -> None:
    """Have the transaction write the file when everything else is written; the last call counts."""
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
