"""Turns what a transaction changed into the payload of one message, whoever made the change.

Everything comes from `tr.changes` and the state that the transaction will leave: added changesets in revision
order, the final phase of every changeset whose phase it set, bookmark moves and deletions, the raw bytes it
adds to the obsstore.

Promises: applied to a copy of the state before, the payload gives the state after, byte by byte.
Does not: see what bypasses transactions; those commands are refused (hgext.transactions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mercurial import changegroup, encoding
from mercurial.node import hex as to_hex

from hgfleet.hgext import markers, steps
from hgfleet.hgext.collecting import collecting
from hgfleet.model.ids import Node
from hgfleet.model.message import Json
from hgfleet.model.payload import PastPush, PayloadWriter, PhaseChanges, Target

SOURCE = b"hgfleet"  # our own source name: Mercurial's publishing rules for pushes stay out of it
MAX_LISTED_HEADS = 1000
MANY_CHANGESETS = 100


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction changed."""

    first_rev: int
    end_rev: int
    phases: PhaseChanges
    bookmarks: dict[str, Node | None]
    obsmarkers: tuple[int, bytes] | None
    pushes: tuple[PastPush, ...] = ()  # by which the changesets came where they are taken over from

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        is_moved = bool(self.phases.moved or self.bookmarks)
        return self.first_rev == self.end_rev and not is_moved and self.obsmarkers is None


def capture(repo: Any, tr: Any) -> Change:
    """Return what the transaction changed so far; call it when nothing else will change."""
    unfiltered = repo.unfiltered()
    first_rev = tr.changes[b"origrepolen"]
    end_rev = len(unfiltered.changelog)
    return Change(
        first_rev=first_rev,
        end_rev=end_rev,
        phases=PhaseChanges(
            tuple(added_phases(unfiltered, first_rev, end_rev)), _moved_phases(unfiltered, tr, first_rev)
        ),
        bookmarks=_moved_bookmarks(tr),
        obsmarkers=markers.added_suffix(unfiltered, tr),
        pushes=steps.past_pushes(tr),
    )


def write_payload(repo: Any, change: Change, target: Target) -> None:
    """Write the change's payload, the changegroup streamed."""
    writer = PayloadWriter(target)
    if change.first_rev < change.end_rev:
        version = changegroup.safeversion(repo.unfiltered())
        writer.write_changegroup(version, changegroup_chunks(repo, version, change.first_rev, change.end_rev))
    if not change.phases.is_empty:
        writer.write_phases(change.phases)
    if change.bookmarks:
        writer.write_bookmarks(change.bookmarks)
    if change.obsmarkers is not None:
        writer.write_obsmarkers(*change.obsmarkers)
    if change.pushes:
        writer.write_pushes(change.pushes)
    writer.close()


def changegroup_chunks(repo: Any, version: bytes, first_rev: int, end_rev: int) -> Iterator[bytes]:
    """Yield the changegroup of a range of revisions, secret and hidden ones included; chunks may be empty."""
    unfiltered = repo.unfiltered()
    changelog = unfiltered.changelog
    nodes = [changelog.node(rev) for rev in range(first_rev, end_rev)]
    bundler = changegroup.getbundler(version, unfiltered)
    # Every copy has all earlier revisions, so the range serves as the set of what is common. The fast path
    # walks whole filelogs, the slow one reads every new manifest: which is faster depends on how many there
    # are.
    is_many = len(nodes) >= MANY_CHANGESETS and version == b"02"
    yield from collecting(bundler.generate(range(first_rev), nodes, is_many, SOURCE))


def describe_changesets(repo: Any, change: Change, heads_before: frozenset[int]) -> dict[str, Json]:
    """Return the parts of a push message's body that tell readers of the log what changed.

    Heads are those without children among all changesets, the newest 1,000 of them.
    """
    changelog = repo.unfiltered().changelog
    heads_after = frozenset(changelog.headrevs()) if change.first_rev < change.end_rev else heads_before
    body: dict[str, Json] = {
        "heads_added": _hex_nodes(changelog, heads_after - heads_before),
        "heads_removed": _hex_nodes(changelog, heads_before - heads_after),
    }
    if change.first_rev < change.end_rev:
        tip = to_hex(changelog.node(change.end_rev - 1)).decode()
        body["changesets"] = {"count": change.end_rev - change.first_rev, "tip": tip}
    else:
        body["changesets"] = {"count": 0, "tip": None}
    return body


def _hex_nodes(changelog: Any, revs: frozenset[int]) -> list[Json]:
    return [to_hex(changelog.node(rev)).decode() for rev in sorted(revs)[-MAX_LISTED_HEADS:]]


def added_phases(repo: Any, first_rev: int, end_rev: int) -> Iterator[tuple[int, int]]:
    """Yield the phases of a range of revisions as (phase, run length)."""
    cache = repo._phasecache
    if first_rev < end_rev and not cache.hasnonpublicphases(repo):
        yield 0, end_rev - first_rev
        return
    for phase, revs in groupby(range(first_rev, end_rev), key=lambda rev: cache.phase(repo, rev)):
        yield phase, sum(1 for _ in revs)


def _moved_phases(repo: Any, tr: Any, first_rev: int) -> dict[int, tuple[Node, ...]]:
    cache, changelog = repo._phasecache, repo.changelog
    nodes_by_phase: dict[int, list[Node]] = {}
    for revs, (old, _new) in tr.changes[b"phases"]:
        for rev in range(revs[0], min(revs[-1] + 1, first_rev)):
            phase = cache.phase(repo, rev)
            if phase != old:
                nodes_by_phase.setdefault(phase, []).append(Node(to_hex(changelog.node(rev)).decode()))
    return {phase: tuple(nodes) for phase, nodes in nodes_by_phase.items()}


def _moved_bookmarks(tr: Any) -> dict[str, Node | None]:
    return {
        encoding.fromlocal(name).decode("utf-8"): Node(to_hex(new).decode()) if new else None
        for name, (old, new) in tr.changes[b"bookmarks"].items()
        if old != new
    }
