"""Logs that earlier releases wrote and that every later one must apply: tests/fixtures/log-format-N.json.

`python -m tests.support.kept_log tests/fixtures/log-format-N.json` writes one as this release does. It is run
once per format, when the format is new; a file that exists is never written again, for it is the promise.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgfleet.hgext import state_digest
from hgfleet.model.message import Kind, encode_message
from hgfleet.model.settings import RepoSettings
from tests.support.local_copies import (
    REPOSITORY,
    Fleet,
    changing,
    commit,
    move_bookmarks,
    obsolete,
    set_phase,
)

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


@dataclass(frozen=True)
class KeptLog:
    """One repository's messages, the blobs that they name, and the digest of the copy that they give."""

    wires: tuple[bytes, ...]
    blob_by_sha256: dict[str, bytes]
    state_digest: str


def read_kept_log(path: Path) -> KeptLog:
    """Read a fixture."""
    fields: dict[str, Any] = json.loads(path.read_text())
    return KeptLog(
        wires=tuple(base64.b64decode(wire) for wire in fields["messages"]),
        blob_by_sha256={name: base64.b64decode(blob) for name, blob in fields["blobs"].items()},
        state_digest=fields["state_digest"],
    )


def write_kept_log(path: Path, directory: Path) -> None:
    """Write what this release makes of a history in which everything occurs that a message can carry."""
    fleet = Fleet.make(directory, inline_limit_bytes=4096)
    _make_history(fleet)
    blobs = {file.name: base64.b64encode(file.read_bytes()).decode() for file in fleet.agent.blobs.iterdir()}
    fields = {
        "messages": [base64.b64encode(encode_message(message)).decode() for message in fleet.messages],
        "blobs": blobs,
        "state_digest": state_digest.full_digest(fleet.repo),
    }
    with path.open("x") as file:
        json.dump(fields, file, indent=1, sort_keys=True)
        file.write("\n")


def _make_history(fleet: Fleet) -> None:
    from mercurial import phases

    repo = fleet.repo
    root = commit(repo, "root")
    with changing(repo):
        left = commit(repo, "left", (root,), {"shared": b"left\n", "a file with spaces": b"1\n"})
        right = commit(repo, "right", (root,), {"shared": b"right\n"})
        commit(repo, "merge", (left, right), {"shared": b"both\n"}, {b"branch": b"stable"})
    large = b"".join(b"%032x\n" % (number * 0x9E3779B97F4A7C15 % 2**128) for number in range(300))
    old = commit(repo, "a payload for the blob store", (root,), {"large": large})
    with changing(repo):
        new = commit(repo, "amended", (root,))
        obsolete(repo, old, new)
        move_bookmarks(repo, {b"work": new, "größe".encode(): root})
    set_phase(repo, phases.public, left)
    set_phase(repo, phases.secret, new)
    move_bookmarks(repo, {b"work": None})
    settings = RepoSettings(writers=("developers", "release"), is_publishing=True).to_json()
    fleet.agent.write(REPOSITORY, Kind.SETTINGS, {"settings": settings})
    fleet.agent.write(REPOSITORY, Kind.VOID, {})
    fleet.bring_up_to_date()
    commit(fleet.repo, "last", (new,))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        write_kept_log(Path(sys.argv[1]), Path(scratch))
