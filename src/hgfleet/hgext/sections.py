"""Applies a payload, section by section, inside an open transaction.

Promises: phases, bookmarks and obsmarkers come out exactly as the payload names them, whatever the copy had.
Does not: check what it led to, or write pushlog and seq file (hgext.apply).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mercurial import changegroup, encoding, phases
from mercurial.node import bin as to_bin

from hgfleet.errors import PoisonError
from hgfleet.hgext import markers
from hgfleet.hgext.capture import SOURCE
from hgfleet.model import payload
from hgfleet.model.ids import Digest, Node
from hgfleet.model.message import Message
from hgfleet.model.payload import PastPush, PhaseChanges, Source, Tag

FetchBlob = Callable[[Digest], AbstractContextManager[Path]]


@contextmanager
def open_payload(message: Message, fetch_blob: FetchBlob) -> Iterator[Source]:
    """Open the payload, wherever it lies."""
    ref = message.envelope.payload
    if ref.is_inline:
        yield io.BytesIO(message.payload)
        return
    with fetch_blob(ref.sha256) as path, path.open("rb") as file:
        yield file


@dataclass(frozen=True, slots=True)
class Pushlog:
    """What a payload says of pushes that were made elsewhere or before; usually nothing."""

    past: tuple[PastPush, ...] = ()  # by which the added changesets came
    files: Mapping[Tag, bytes] = field(default_factory=dict)  # the whole pushlog


def apply_sections(repo: Any, tr: Any, source: Source) -> Pushlog:
    """Apply changesets, phases, bookmarks and obsmarkers; return what the payload says of pushes."""
    first_rev = len(repo.changelog)
    moved = PhaseChanges()
    past: tuple[PastPush, ...] = ()
    files: dict[Tag, bytes] = {}
    for tag, stream in payload.read_sections(source):
        match tag:
            case Tag.CHANGEGROUP:
                apply_changegroup(repo, tr, stream)
            case Tag.PHASES:
                moved = payload.read_phases(stream)
                apply_phases(repo, tr, moved, first_rev)
            case Tag.BOOKMARKS:
                apply_bookmarks(repo, tr, payload.read_bookmarks(stream))
            case Tag.OBSMARKERS:
                markers.add_raw(repo, tr, *payload.read_obsmarkers(stream))
            case Tag.PUSHES:
                past = payload.read_pushes(stream)
            case _:
                files[tag] = payload.read_file(stream)
    if sum(length for _, length in moved.added) != len(repo.changelog) - first_rev:
        raise PoisonError("payload.misfit", "phases are not those of the added changesets")
    return Pushlog(past, files)


def apply_changegroup(repo: Any, tr: Any, stream: payload.SectionStream) -> None:
    """Add the changegroup's revisions, public until the phases come."""
    version = payload.read_changegroup_version(stream)
    unpacker = changegroup.getunbundler(version, stream, b"UN")
    unpacker.apply(repo, tr, SOURCE, b"hgfleet:", targetphase=phases.public)


def apply_phases(repo: Any, tr: Any, changes: PhaseChanges, first_rev: int) -> None:
    """Set the final phases: first all up to them, which carries descendants along, then all down to them."""
    nodes_by_phase = _nodes_by_phase(repo, changes, first_rev)
    for phase, nodes in sorted(nodes_by_phase.items()):
        if phase != phases.public:
            phases.retractboundary(repo, tr, phase, nodes)
    for phase, nodes in sorted(nodes_by_phase.items()):
        phases.advanceboundary(repo, tr, phase, nodes)


def _nodes_by_phase(repo: Any, changes: PhaseChanges, first_rev: int) -> dict[int, list[bytes]]:
    node = repo.changelog.node
    nodes_by_phase = {phase: [to_bin(each) for each in nodes] for phase, nodes in changes.moved.items()}
    rev = first_rev
    for phase, length in changes.added:
        nodes_by_phase.setdefault(phase, []).extend(node(each) for each in range(rev, rev + length))
        rev += length
    return nodes_by_phase


def apply_bookmarks(repo: Any, tr: Any, node_by_name: dict[str, Node | None]) -> None:
    """Move bookmarks; None deletes."""
    changes = [
        (encoding.tolocal(name.encode("utf-8")), to_bin(node) if node else None)
        for name, node in node_by_name.items()
    ]
    repo._bookmarks.applychanges(repo, tr, changes)
