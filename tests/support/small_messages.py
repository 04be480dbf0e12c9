"""Very many small messages for mirrors to apply, made for less than Mercurial needs to make one.

A bookmark goes to and fro: the two messages of that are made by real transactions once, and appended through
the log agent again and again, each time on top of the last one. A mirror cannot tell them from real ones.

Promises: every message counts, and each is applied in a transaction of its own like any other.
Does not: grow the repositories: what grows with the number of messages is somebody's leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hgfleet.adapters.agent_answers import AppendRequest, LastMessage
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.model.ids import Digest, Seq
from hgfleet.model.message import Message, decode_message
from tests.support.fleet import descendants
from tests.support.mirror_fleet import Mirror, MirrorFleet, Repository
from tests.support.waiting import wait_until

_APPEND_SECONDS = 30.0
_AHEAD = 500  # messages that mirrors may be behind: what nobody reads yet is no leak
_APPLY_SECONDS = 600.0
_PAGE_BYTES = 4096


@dataclass
class ToAndFro:
    """One repository whose bookmark moves."""

    repository: Repository
    moves: tuple[Message, Message]
    last: LastMessage
    seq: Seq
    digest: Digest

    @classmethod
    def begin(cls, fleet: MirrorFleet, path: str) -> ToAndFro:
        """Make a repository with two changesets and both moves of its bookmark."""
        repository = fleet.create(path)
        fleet.push(repository, 2)
        for rev in (0, 1, 0, 1):
            fleet.change(repository, partial(_move, rev=rev))
        logged = fleet.client.read(repository.id, repository.seq - 2).messages
        forth, back = (decode_message(message.wire) for message in logged)
        last = fleet.client.last(repository.id)
        return cls(repository, (forth, back), last, last.seq, last.digest)

    def append(self, client: LogAgentClient, number: int) -> None:
        """Append one more."""
        move = self.moves[number % 2]
        accepted = client.append(
            AppendRequest(
                repository=self.repository.id,
                base_seq=self.seq,
                base_digest=self.digest,
                epoch=self.last.serving_epoch,
                kind=move.envelope.kind,
                body=dict(move.envelope.body),
                identity="alice",
                trace=f"small-{number}",
                payload=move.envelope.payload,
                inline=move.payload,
            ),
            _APPEND_SECONDS,
        )
        self.seq, self.digest = accepted.seq, accepted.digest


def _move(repo: Any, tr: Any, *, rev: int) -> None:
    repo._bookmarks.applychanges(repo, tr, [(b"moving", repo.changelog.node(rev))])


@dataclass(frozen=True, slots=True)
class Memory:
    """The resident memory of what a mirror's messages pass through."""

    messages: int
    agent_bytes: int
    applier_bytes: int
    workers_bytes: int  # all of them together

    @property
    def bytes_by_name(self) -> dict[str, int]:
        """Return each by what it is."""
        return {
            "log agent": self.agent_bytes,
            "applier": self.applier_bytes,
            "apply workers": self.workers_bytes,
        }

    def growth_since(self, before: Memory) -> dict[str, float]:
        """Return by how many bytes per message each has grown."""
        earlier, count = before.bytes_by_name, self.messages - before.messages
        return {name: (size - earlier[name]) / count for name, size in self.bytes_by_name.items()}


def measure_memory(fleet: MirrorFleet, repositories: int, messages: int, samples: int) -> list[Memory]:
    """Let a fleet's first mirror apply so many messages; return what everything held at equal distances."""
    moving = [ToAndFro.begin(fleet, f"moving{number}") for number in range(repositories)]
    seen = list[Memory]()
    for number in range(messages):
        one = moving[number % repositories]
        one.append(fleet.client, number // repositories)
        if number % _AHEAD == _AHEAD - 1:
            _wait_exposed(fleet, moving)
        if (number + 1) % (messages // samples) == 0:
            _wait_exposed(fleet, moving)
            seen.append(_look(fleet, number + 1))
    return seen


def _wait_exposed(fleet: MirrorFleet, moving: Sequence[ToAndFro]) -> None:
    def is_level() -> bool:
        return all(fleet.mirrors[0].exposed(one.repository.id) == one.seq for one in moving)

    wait_until(is_level, what="the mirror shows all", deadline_seconds=_APPLY_SECONDS, explain=fleet.explain)


def _look(fleet: MirrorFleet, messages: int) -> Memory:
    mirror: Mirror = fleet.mirrors[0]
    workers = sum(map(_resident_bytes, descendants(mirror.process.pid)))
    return Memory(messages, _resident_bytes(fleet.agent.pid), _resident_bytes(mirror.process.pid), workers)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
