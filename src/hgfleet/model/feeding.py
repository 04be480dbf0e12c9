"""The feed writer's brain: what it appends next, from what it has read of the feed and heard to be visible.

A message enters once every mirror in service shows it. Those of the catalogue go first; those of a repository
enter while it is bound as of the catalogue's last entry, under that path. So nothing is said of a repository
before it is said to exist, nor after it is said to be gone: then no mirror would answer for it.

Promises: under its own turn only, and with one append in flight; killed at any step, or beside any number of
other writers, what counts stays once per repository and in order (model.feed). Memory grows with the number
of repositories that wait, not with their messages.
Does not: read messages, append or wait; its caller does what `next_step` says and reports back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from hgfleet.model.feed import FEED_START, FeedPosition, FeedReader, FeedVerdict
from hgfleet.model.feed_records import OVERRUN, FeedEntry, FeedRecord, Opening, entry_of
from hgfleet.model.ids import CATALOGUE, Offset, Partition, Position, RepoId, RepoPath, Seq
from hgfleet.model.message import Kind, Message

MAX_WANTED = 64  # repositories per append
NO_SEQ = Seq(0)


class Act(Enum):
    """What the caller should do."""

    WAIT = "wait"  # until more is read, or visible
    OPEN = "open"  # append `opening`
    EMIT = "emit"  # read the messages that are `wanted`, `compose` each, `send` the entries and append them
    OVER = "over"  # another writer opened a turn; go on as a new life, if at all


@dataclass(frozen=True, slots=True)
class Wanted:
    """Messages of one repository that are to enter the feed: those after one seq up to another."""

    repository: RepoId
    after: Seq
    upto: Seq


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do."""

    act: Act
    opening: Opening | None = None
    wanted: tuple[Wanted, ...] = ()


@dataclass(frozen=True, slots=True)
class Logged:
    """A message that counts, as it was read."""

    message: Message
    position: Position  # after it


WAIT = Step(Act.WAIT)
OVER = Step(Act.OVER)


class Feeder:
    """What one process knows of the feed; `begin` starts a life of its writer.

    `seqs` and `position` are what was last kept of the feed, `paths` the bindings as of the catalogue's seq
    in there. `now` is Unix time.
    """

    def __init__(
        self,
        host: str,
        *,
        position: FeedPosition = FEED_START,
        seqs: Mapping[RepoId, Seq] | None = None,
        paths: Mapping[RepoId, RepoPath] | None = None,
    ) -> None:
        self.reader = FeedReader(position, seqs)
        self.dirty: set[RepoId] = set()  # entered or ended since `take_dirty`
        self._host = host
        self._life = ""
        self._paths = dict(paths or {})
        self._visible: dict[RepoId, Seq] = {}
        self._pending_since: dict[RepoId, float] = {}  # in the order in which they are served
        self._stalled: set[RepoId] = set()  # their messages could not be read
        self._all_sent_at: dict[RepoId, float] = {}
        self._end: Offset | None = None
        self._turn: int | None = None  # what this life bid, or holds
        self._is_open = False
        self._in_flight: dict[RepoId, Seq] = {}

    # -- what happened

    @property
    def is_open(self) -> bool:
        """Whether this life's turn is in force, as far as the feed was read."""
        return self._is_open and self.reader.position.turn == self._turn

    @property
    def is_awaiting(self) -> bool:
        """Whether the feed is to bring something that this life waits for."""
        return not self._is_open or bool(self._in_flight)

    def begin(self, life: str) -> None:
        """Forget what an earlier life had under way: all of it counts, or is read before the next opening."""
        self._life = life
        self._end, self._turn, self._is_open = None, None, False
        self._in_flight.clear()

    def note_end(self, end: Offset) -> None:
        """Take an end of the feed that was fetched after `begin`."""
        self._end = end

    def note_visible(self, seqs: Mapping[RepoId, Seq], now: float) -> None:
        """Take up to where repositories are visible on all mirrors; never goes back."""
        for repository, seq in seqs.items():
            self._visible[repository] = max(seq, self._visible.get(repository, NO_SEQ))
            self._stalled.discard(repository)
            self._queue(repository, now)

    def take(self, record: FeedRecord | None, next_offset: Offset, now: float) -> FeedVerdict:
        """Take the next record of the feed; None: it is unreadable."""
        if record is None:
            self.reader.take_unreadable(next_offset)
            return FeedVerdict.IGNORED
        verdict = self.reader.take(record, next_offset)
        if isinstance(record, Opening):
            self._is_open |= verdict is FeedVerdict.OPENED and record.life == self._life
        elif verdict is not FeedVerdict.IGNORED:
            self._note_entered(record, now)
        return verdict

    def withdraw(self) -> None:
        """Undo the last append, which surely did not happen."""
        self._in_flight.clear()
        if not self._is_open:
            self._turn = None

    def retry_stalled(self) -> None:
        """Try again to read what could not be read."""
        self._stalled.clear()

    def take_dirty(self) -> dict[RepoId, Seq | None]:
        """Return the repositories that went on since the last call and how far they are; None: ended."""
        dirty, self.dirty = self.dirty, set()
        return {repository: self.reader.seqs.get(repository) for repository in sorted(dirty)}

    # -- what to do

    def next_step(self, now: float) -> Step:
        """Return what to do now; ask again after every record, answer or time-out."""
        if self._end is None or self.reader.position.offset < self._end:
            return WAIT
        turn = self.reader.position.turn
        if self._turn is None:
            self._turn = turn + 1
            return Step(Act.OPEN, Opening(self._turn, self._host, self._life, now))
        if turn > self._turn or (turn == self._turn and not self._is_open):
            return OVER
        if not self._is_open or self._in_flight:
            return WAIT
        wanted = self._next_wanted()
        return Step(Act.EMIT, wanted=wanted) if wanted else WAIT

    def compose(self, wanted: Wanted, messages: Sequence[Logged], partition: Partition) -> list[FeedEntry]:
        """Make the entries of what was read, as far as it follows and is wanted; none: not there yet."""
        entries: list[FeedEntry] = []
        last = wanted.after
        for logged in messages:
            if logged.message.envelope.seq != last + 1 or last >= wanted.upto:
                break
            entries.append(self._entry(logged, partition))
            last = logged.message.envelope.seq
        if not entries:
            self._stalled.add(wanted.repository)
        return entries

    def overrun(self, wanted: Wanted, partition: Partition, now: float) -> FeedEntry:
        """Make the entry that says that the log no longer has what is wanted."""
        return FeedEntry(
            turn=0,
            number=0,
            repository=wanted.repository,
            seq=wanted.upto,
            after=wanted.after,
            kind=OVERRUN,
            path=self._paths.get(wanted.repository, ""),
            at=now,
            partition=partition,
            identity=f"host:{self._host}",
        )

    def send(self, entries: Sequence[FeedEntry], now: float) -> list[FeedEntry]:
        """Return the entries as they are to be appended next, numbered under this life's turn."""
        self._note_sent(entries, now)
        first = max(self.reader.position.number, 0) + 1
        return [
            replace(entry, turn=self._turn or 0, number=first + index) for index, entry in enumerate(entries)
        ]

    # -- for people

    def behind(self) -> int:
        """Return how many visible messages have not entered."""
        return sum(self._visible[r] - self._entered(r) for r in self._pending_since if self._may_enter(r))

    def behind_since(self) -> float | None:
        """Return since when the oldest of them waits, None when none does."""
        return min((at for r, at in self._pending_since.items() if self._may_enter(r)), default=None)

    # -- inside

    def _note_sent(self, entries: Sequence[FeedEntry], now: float) -> None:
        for entry in entries:
            self._in_flight[entry.repository] = entry.seq
        for repository, seq in self._in_flight.items():
            since = self._pending_since.pop(repository, now)
            self._pending_since[repository] = since  # behind the others, if it goes on waiting
            if seq == self._visible.get(repository):
                self._all_sent_at[repository] = now

    def _entered(self, repository: RepoId) -> Seq:
        return self.reader.seqs.get(repository, NO_SEQ)

    def _may_enter(self, repository: RepoId) -> bool:
        return repository == CATALOGUE or repository in self._paths

    def _queue(self, repository: RepoId, now: float) -> None:
        """Have the repository wait, or not any more."""
        if self._visible.get(repository, NO_SEQ) > self._entered(repository):
            self._pending_since.setdefault(repository, now)
        else:
            self._pending_since.pop(repository, None)

    def _next_wanted(self) -> tuple[Wanted, ...]:
        """Return the catalogue alone, or the repositories that have waited longest."""
        if CATALOGUE in self._pending_since and CATALOGUE not in self._stalled:
            return (self._wanted(CATALOGUE),)
        found: list[Wanted] = []
        for repository in self._pending_since:
            if repository in self._paths and repository not in self._stalled:
                found.append(self._wanted(repository))
                if len(found) == MAX_WANTED:
                    break
        return tuple(found)

    def _wanted(self, repository: RepoId) -> Wanted:
        return Wanted(repository, self._entered(repository), self._visible[repository])

    def _entry(self, logged: Logged, partition: Partition) -> FeedEntry:
        path = self._paths.get(logged.message.envelope.repository, "")
        return entry_of(logged.message, logged.position, partition, path)

    def _note_entered(self, entry: FeedEntry, now: float) -> None:
        repository = entry.repository
        self.dirty.add(repository)
        if self._in_flight.get(repository, NO_SEQ) <= entry.seq:
            self._in_flight.pop(repository, None)
        sent_at = self._all_sent_at.pop(repository, None)
        if sent_at is not None and repository in self._pending_since:
            self._pending_since[repository] = sent_at  # what waits still has become visible after that
        self._queue(repository, now)
        if repository == CATALOGUE:
            self._note_path(entry)

    def _note_path(self, entry: FeedEntry) -> None:
        """Follow the bindings; an entry of the catalogue carries its message's whole body."""
        body = entry.body
        repository = RepoId(str(body.get("repository", "")))
        match entry.kind:
            case Kind.BIND:
                self._paths[repository] = RepoPath(str(body.get("path", "")))
            case Kind.RENAME:
                self._paths[repository] = RepoPath(str(body.get("new_path", "")))
            case Kind.UNBIND:
                self._forget(repository)

    def _forget(self, repository: RepoId) -> None:
        self.dirty.add(repository)
        self._paths.pop(repository, None)
        self._visible.pop(repository, None)
        self._pending_since.pop(repository, None)
        self._in_flight.pop(repository, None)
