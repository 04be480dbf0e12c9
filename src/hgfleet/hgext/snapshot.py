"""Makes a snapshot of a copy, and a copy of a snapshot.

The lock is held only while what a transaction may replace is read: seq file, phases, bookmarks, the lengths
of what only grows, and the full digest. Changesets are streamed afterwards, up to that length.

Promises: memory does not grow with the repository, beyond Mercurial's own indexes; a restored copy has the
full state digest that its snapshot names, or it does not come into use. A copy that changes under the reader
in a way that Mercurial's files do not allow for gives a snapshot that does not restore, never a wrong copy.
Does not: put snapshots anywhere, announce them, or choose one (replication.snapshot_maker, mirror_lanes).
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mercurial import changegroup

from hgfleet.errors import PoisonError
from hgfleet.hgext import (
    adopt,
    binding,
    capture,
    copies,
    creation,
    fingerprint,
    generations,
    journal,
    pushlog,
    recovery,
    sections,
    state_digest,
    steps,
)
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.push_errors import MISFITS
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model import payload
from hgfleet.model.ids import Digest, Node
from hgfleet.model.message import PayloadRef
from hgfleet.model.payload import PayloadWriter, PhaseChanges, Tag
from hgfleet.model.snapshot import SnapshotHeader, damaged, read_header, write_header
from hgfleet.runtime import clock

_OBSSTORE = "obsstore"
_FILE_BY_TAG = {
    Tag.OBSMARKERS: _OBSSTORE,  # the section is the file: its version byte, then the markers
    Tag.PUSHERS: pushlog.PUSHERS_NAME,
    Tag.PUSHLOG: pushlog.NAME,
}
_CHUNK_BYTES = 1024 * 1024
_COLLECT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Made:
    """A snapshot that lies in a file."""

    header: SnapshotHeader
    blob: PayloadRef


@dataclass(frozen=True, slots=True)
class _Frozen:
    """What was read under the lock; everything else only grows."""

    header: SnapshotHeader
    phases: PhaseChanges
    bookmarks: dict[str, Node | None]
    size_by_tag: dict[Tag, int]


def make(copy: Copy, target: Path) -> Made:
    """Write the copy's state to a new file `target`.

    Raises LookupError when there is no copy, RejectedError `repo.altered`, PoisonError, OSError or what
    Mercurial raises; `target` is worth nothing then.
    """
    repo = copy.repo
    bound = binding.of(repo)
    with bound.applying(), repo.lock():
        frozen = _freeze(repo)
    with target.open("xb") as file:
        hashing = _Hashing(file)
        write_header(hashing, frozen.header)
        _write_payload(repo, frozen, PayloadWriter(hashing))
    return Made(frozen.header, PayloadRef(hashing.size_bytes, Digest(hashing.digest.hexdigest()), False))


class _Hashing:
    """A target that knows what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> None:
        self.digest.update(data)
        self.size_bytes += len(data)
        self._file.write(data)


def _freeze(repo: Any) -> _Frozen:
    bound = binding.of(repo)
    journal.recover_abandoned(repo)
    state = recovery.consistent_state(repo, bound)
    header = SnapshotHeader(
        repository=state.repository,
        partition=state.partition,
        seq=state.seq,
        digest=state.digest,
        position=state.position,
        fingerprint=state.fingerprint,
        settings=state.settings,
        state_digest=state_digest.full_digest(repo),
        requirements=tuple(sorted(name.decode() for name in repo.requirements)),
        made_at=clock.now(),
    )
    count = state.fingerprint.changelog_length
    sizes = {tag: _size(bound.store / name) for tag, name in _FILE_BY_TAG.items()}
    return _Frozen(
        header, PhaseChanges(tuple(capture.added_phases(repo, 0, count))), adopt.bookmarks_of(repo), sizes
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write_payload(repo: Any, frozen: _Frozen, writer: PayloadWriter) -> None:
    store = binding.of(repo).store
    count = frozen.header.fingerprint.changelog_length
    if count:
        version = changegroup.safeversion(repo)
        chunks = _collected(capture.changegroup_chunks(repo, version, 0, count))
        writer.write_changegroup(version, chunks)
        writer.write_phases(frozen.phases)
    if frozen.bookmarks:
        writer.write_bookmarks(frozen.bookmarks)
    for tag, name in _FILE_BY_TAG.items():
        if size := frozen.size_by_tag[tag]:
            writer.write(tag, _file_chunks(store / name, size))
    writer.close()


def _collected(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Collect what is left of each file's revlog: full of cycles, and with its last text in it."""
    since_bytes = 0
    for chunk in chunks:
        yield chunk
        since_bytes += len(chunk)
        if since_bytes > _COLLECT_BYTES:
            since_bytes = 0
            gc.collect()


def _file_chunks(path: Path, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes."""
    with path.open("rb") as file:
        while size and (data := file.read(min(size, _CHUNK_BYTES))):
            size -= len(data)
            yield data


# ---- restoring


def restore(copy: Copy, expected: tuple[int, Digest], source: Path) -> SeqState:
    """Build the copy from the snapshot in the file `source`, as a new generation, and put it in use.

    `expected` is the seq and the message's digest that the log says it has. Raises PoisonError
    `snapshot.…` or `state.differs`: the snapshot is worth nothing, and the copy is what it was; or OSError.
    """
    with source.open("rb") as file:
        header = read_header(file)
        if (header.seq, header.digest) != expected:
            raise PoisonError("snapshot.other", "a snapshot of another state than the log says")
        state = SeqState(
            repository=header.repository,
            partition=header.partition,
            seq=header.seq,
            digest=header.digest,
            position=header.position,
            fingerprint=header.fingerprint,
            settings=header.settings,
        )
        generations.create_next(copy.directory, lambda root: _build(copy.ui, root, (header, state), file))
    copy.forget()
    return state


def _build(ui: Any, root: Path, wanted: tuple[SnapshotHeader, SeqState], file: BinaryIO) -> None:
    header, state = wanted
    creation.create_repository(root, SeqState(state.repository, state.partition))
    repo = copies.open_repository(ui, root)
    bound = binding.of(repo)
    with repo.ui.silent(), bound.applying(), repo.lock():
        bound.faults.reach("restore-before-transaction")
        with repo.transaction(b"hgfleet-apply") as tr:
            try:
                _apply_sections(repo, tr, file)
            except MISFITS as exc:
                raise damaged(f"it does not apply: {exc}") from exc
            _check_fingerprint(repo, tr, state)
            steps.commit_state(tr, state)
    bound.faults.reach("restore-before-switch")
    _check_digest(copies.open_repository(ui, root), header)


def _apply_sections(repo: Any, tr: Any, file: BinaryIO) -> None:
    moved = PhaseChanges()
    for tag, stream in payload.read_sections(file):
        match tag:
            case Tag.CHANGEGROUP:
                sections.apply_changegroup(repo, tr, stream)
            case Tag.PHASES:
                moved = payload.read_phases(stream)
                sections.apply_phases(repo, tr, moved, 0)
            case Tag.BOOKMARKS:
                sections.apply_bookmarks(repo, tr, payload.read_bookmarks(stream))
            case _ if tag in _FILE_BY_TAG:
                _write_file(binding.of(repo).store / _FILE_BY_TAG[tag], stream)
            case _:
                raise damaged("it has a section that no snapshot has")
    if sum(length for _phase, length in moved.added) != len(repo.changelog):
        raise damaged("its phases are not those of its changesets")


def _write_file(path: Path, stream: payload.SectionStream) -> None:
    """Write a file of a generation that nobody has yet: no transaction need undo it."""
    with path.open("wb") as file:
        while data := stream.read(_CHUNK_BYTES):
            file.write(data)


def _check_fingerprint(repo: Any, tr: Any, state: SeqState) -> None:
    found = fingerprint.take(repo, steps.pushes_after(repo, tr), tr)
    if found != state.fingerprint:
        raise PoisonError("state.differs", "the snapshot led to another state", seq=state.seq)


def _check_digest(repo: Any, header: SnapshotHeader) -> None:
    if state_digest.full_digest(repo) != header.state_digest:
        raise PoisonError("state.differs", "the snapshot led to another state", seq=header.seq)
