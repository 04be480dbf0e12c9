"""Copies of one repository in the test's process: a primary that is changed, replicas that replay its log."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hgfleet.hgext import apply, binding, generations, local_ui, pushlog, recovery, seqfile, state_digest
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.pushlog import Push
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.ids import Partition, Position, RepoId
from hgfleet.model.message import Kind, Message, decode_message
from hgfleet.model.settings import RepoSettings
from tests.support.memory_agent import MemoryAgent

REPOSITORY = RepoId("ab" * 16)
PARTITION = Partition(1)
# Caches are not replicated; undo files and the lock are this host's own.
IGNORED = (
    "hgfleet-seq",
    "undo",
    "journal.desc",
    "cache",
    "lock",
    "last-message",
    "branch",
    "dirstate",
    "wcache",
    "hgfleet-spool",
)


@cache
def ui(role: str = "primary", inline_limit_bytes: int = 1 << 18) -> Any:
    """Return a Mercurial with our extension, as a process of that role has it."""
    options = local_ui.LocalOptions(
        role=role,
        host=role,
        agent_socket=Path("/nonexistent"),
        inline_limit_bytes=inline_limit_bytes,
        allow_faults=True,
    )
    loaded = local_ui.load_ui(options)
    loaded.setconfig(b"ui", b"username", b"Alice <alice@example.org>", b"test")
    loaded.setconfig(b"ui", b"timeout", b"1", b"test")
    loaded.setconfig(b"devel", b"default-date", b"1700000000 0", b"test")
    return loaded


@dataclass
class Fleet:
    """A log in memory, a primary on it, and any number of replicas."""

    directory: Path
    agent: MemoryAgent
    primary: Copy

    @classmethod
    def make(cls, directory: Path, *, is_publishing: bool = False, **limits: int) -> Fleet:
        """Return a fleet with one empty repository, which the primary has."""
        agent = MemoryAgent(directory / "blobs")
        settings = RepoSettings(writers=("developers",), is_publishing=is_publishing).to_json()
        agent.write(REPOSITORY, Kind.CREATED, {"settings": settings})
        fleet = cls(directory, agent, Copy(ui(**limits), directory / "primary" / REPOSITORY))
        fleet.bring_up_to_date()
        return fleet

    @property
    def repo(self) -> Any:
        """The primary's repository, asking the log in memory."""
        repo = self.primary.repo
        binding.of(repo).agent_client = self.agent
        return repo

    @property
    def state(self) -> SeqState:
        """The primary's state."""
        state = self.primary.state
        assert state is not None
        return state

    @property
    def messages(self) -> list[Message]:
        """What the log has."""
        return self.agent.messages[REPOSITORY]

    @property
    def pushes(self) -> list[Push]:
        """The primary's pushlog."""
        with pushlog.Pushlog(store_of(self.primary)) as log:
            return list(log.range(1, len(log)))

    def bring_up_to_date(self) -> recovery.Standing:
        """Do what a session does before its hello."""
        if self.primary.is_present:
            binding.of(self.primary.repo).agent_client = self.agent
        return recovery.bring_up_to_date(self.primary, REPOSITORY, self.agent)

    def replica(self, name: str = "mirror") -> Copy:
        """Return a copy that has nothing yet."""
        return Copy(ui("mirror"), self.directory / name / REPOSITORY)

    def steps(self) -> list[tuple[Message, Position]]:
        """Return all messages as an applier hands them over."""
        logged: list[tuple[Message, Position]] = []
        while batch := self.agent.read(REPOSITORY, len(logged)).messages:
            logged += [(decode_message(message.wire), message.position) for message in batch]
        return logged

    def replay(self, copy: Copy, *, is_each_alone: bool = False) -> SeqState:
        """Apply the whole log to a copy."""
        fetch = recovery.blob_fetcher(copy, self.agent)
        return apply.apply_messages(copy, PARTITION, self.steps(), fetch, is_each_alone=is_each_alone)

    def check_replicas(self) -> None:
        """Replay the log twice, message by message and in one go: all copies must be equal byte by byte."""
        for number, is_each_alone in enumerate((True, False)):
            copy = self.replica(f"replica{number}-{len(self.messages)}")
            self.replay(copy, is_each_alone=is_each_alone)
            assert_identical(self.primary, copy)


def store_of(copy: Copy) -> Path:
    """Return a copy's store."""
    root = generations.current_root(copy.directory)
    assert root is not None
    return root / ".hg" / "store"


def files_of(copy: Copy) -> dict[str, str]:
    """Return the digest of every file that copies must agree on."""
    hg_directory = store_of(copy).parent
    return {
        str(path.relative_to(hg_directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(hg_directory.rglob("*"))
        if path.is_file() and not any(word in str(path.relative_to(hg_directory)) for word in IGNORED)
    }


def assert_identical(one: Copy, other: Copy) -> None:
    """Compare two copies: files, seq files and full digests."""
    assert seqfile.read(one.repo.root.decode()) == seqfile.read(other.repo.root.decode())
    files, others = files_of(one), files_of(other)
    assert {name for name in files | others if files.get(name) != others.get(name)} == set()
    assert state_digest.full_digest(one.repo) == state_digest.full_digest(other.repo)


_numbers = itertools.count()


def commit(
    repo: Any,
    text: str,
    parents: tuple[bytes, ...] = (),
    files: dict[str, bytes] | None = None,
    extra: dict[bytes, bytes] | None = None,
) -> bytes:
    """Commit in memory; without `files` a new file is added."""
    from mercurial import context

    contents = files if files is not None else {f"file{next(_numbers)}": text.encode() + b"\n"}

    def content(repo: Any, change: Any, path: bytes) -> Any:
        return context.memfilectx(repo, change, path, contents[path.decode()])

    ends = (*parents, *(repo.nullid,) * 2)[:2] if parents else (repo.changelog.tip(), repo.nullid)
    names = [name.encode() for name in contents]
    change = context.memctx(repo, ends, text.encode(), names, content, extra=extra)
    return bytes(change.commit())


@contextmanager
def changing(repo: Any, name: bytes = b"test") -> Iterator[Any]:
    """Lock and open a transaction."""
    with repo.lock(), repo.transaction(name) as tr:
        yield tr


def move_bookmarks(repo: Any, node_by_name: dict[bytes, bytes | None]) -> None:
    """Move, make or delete bookmarks in one transaction."""
    with changing(repo, b"bookmark") as tr:
        repo._bookmarks.applychanges(repo, tr, list(node_by_name.items()))


def set_phase(repo: Any, phase: int, *nodes: bytes) -> None:
    """Force changesets into a phase, in either direction."""
    from mercurial import phases

    with changing(repo, b"phase") as tr:
        phases.retractboundary(repo, tr, phase, nodes)
        phases.advanceboundary(repo, tr, phase, nodes)


def obsolete(repo: Any, old: bytes, *new: bytes) -> None:
    """Add an obsmarker."""
    from mercurial import obsolete as mercurial_obsolete

    with changing(repo, b"debugobsolete"):
        relation = (repo[old], tuple(repo[node] for node in new))
        mercurial_obsolete.createmarkers(repo, [relation], operation=b"amend")
