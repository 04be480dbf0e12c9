"""What each host's copy of one repository says about itself, read from its files.

Promises: reads small files that are replaced by rename or get a line more, so a value is old or new, never
torn; a host without the repository has seq 0.
Does not: open repositories or bring anything up to date.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgfleet.config.layout import HostLayout
from hgfleet.model.ids import RepoId
from hgfleet.model.state import last_record

SEQ_FILE = Path(".hg/store/hgfleet-seq")
EXPOSED_FILE = Path(".hg/hgfleet-exposed")


@dataclass(frozen=True, slots=True)
class CopyState:
    """One copy. `digest` is that of the last applied message; `exposed_seq` is 0 where nothing is shown."""

    host: str
    path: str
    seq: int
    exposed_seq: int
    digest: str
    fingerprint: dict[str, Any]
    partition: int


def read_copy(host: HostLayout, repository: RepoId, *, is_primary: bool) -> CopyState:
    """Return what the host's copy says; the primary shows whatever it has."""
    directory = host.repository(repository)
    applied = _read_json(directory / SEQ_FILE)
    seq = int(applied.get("seq", 0))
    exposed = seq if is_primary else int(_read_json(directory / EXPOSED_FILE).get("seq", 0))
    return CopyState(
        host=host.name,
        path=str(directory.resolve()),
        seq=seq,
        exposed_seq=exposed,
        digest=str(applied.get("digest", "")),
        fingerprint=dict(applied.get("fingerprint") or {}),
        partition=int(applied.get("partition", 0)),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(last_record(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return content
