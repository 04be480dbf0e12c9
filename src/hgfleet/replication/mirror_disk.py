"""What a mirror finds on its disk when it starts: one look at every copy, without opening any.

Promises: a copy that a crash may have left in the middle of something is marked for inspection by a worker;
nothing is changed.
Does not: know how Mercurial stores anything beyond the names in docs/design/local-protocols.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hgfleet.adapters import view_files
from hgfleet.errors import InvariantError, RejectedError
from hgfleet.model.ids import Partition, RepoId, Seq, parse_repo_id
from hgfleet.model.state import last_record
from hgfleet.replication.exposure import exposed_seq, hg_directory
from hgfleet.replication.mirror_copies import Copy

_SEQ_FILE = "hgfleet-seq"
_DELETED_FILE = "deleted.json"


def find_copies(repositories: Path) -> Iterator[Copy]:
    """Yield what lies under `repos/`."""
    if not repositories.is_dir():
        return
    for directory in repositories.iterdir():
        try:
            repository = parse_repo_id(directory.name)
        except RejectedError:
            continue
        yield _look_at(repository, directory)


def _look_at(repository: RepoId, directory: Path) -> Copy:
    where = hg_directory(directory)
    if not where.is_dir():
        return _look_at_absent(repository, directory)
    fields = _read(where / "store" / _SEQ_FILE)
    if fields is None:
        return Copy(repository, Partition(0), is_checked=False)
    copy = Copy(repository, Partition(fields["partition"]), applied=Seq(fields["seq"]))
    try:
        copy.exposed = exposed_seq(directory)
        copy.is_checked = _is_settled(where, copy.applied)
    except InvariantError:
        copy.is_checked = False
    return copy


def _look_at_absent(repository: RepoId, directory: Path) -> Copy:
    """Tell a deleted copy from one whose creation was interrupted."""
    last = _read(directory / _DELETED_FILE)
    if last is None:
        return Copy(repository, Partition(0))
    return Copy(repository, Partition(last["partition"]), applied=Seq(last["seq"]), is_deleted=True)


def _is_settled(where: Path, applied: Seq) -> bool:
    return not (where / "store" / "journal").exists() and view_files.is_viewed(where, applied)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(last_record(path.read_bytes()))
        return {"partition": int(fields["partition"]), "seq": int(fields["seq"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
