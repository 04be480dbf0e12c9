"""A world of feed writers around one feed topic and one state topic, in single steps.

The deciding is done by the product's own rules (`FeedRules`; a test may put a wrong one in). What was sent
lands record by record when somebody lets it, a dead life's too, and perhaps a second time; one life's in the
order it sent them. The feed is cut, but never behind the place that the state topic has.

Writers are `w1`, `w2`, …; repositories `A` and `B`; what the catalogue says of them is CATALOGUE_STORY.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from hgfleet.model.feed import FEED_START, FeedPosition, FeedReader, FeedVerdict, unbound_repository
from hgfleet.model.feed_marks import FeedMark, FeedMarks, FeedPlace
from hgfleet.model.feed_records import FeedEntry, FeedRecord, decode_feed_record, encode_feed_record
from hgfleet.model.feeding import Act, Feeder, Logged, Step
from hgfleet.model.ids import CATALOGUE, START, Offset, Partition, RepoId, RepoPath, Seq
from hgfleet.model.message import Json, Kind, Message
from tests.support.messages import Chain
from tests.support.protocol_play import Steps, expect

A, B = RepoId("a" * 32), RepoId("b" * 32)
NAMES = {"A": A, "B": B, "cat": CATALOGUE}
PATHS = {A: "team/a", B: "team/b"}
HEAD = 6  # messages per repository
CATALOGUE_STORY: list[tuple[Kind, dict[str, Json]]] = [
    (Kind.EPOCH, {"number": 1, "host": "one", "life": "x"}),
    (Kind.BIND, {"path": "team/a", "repository": A, "partition": 0}),
    (Kind.BIND, {"path": "team/b", "repository": B, "partition": 1}),
    (Kind.RENAME, {"path": "team/a", "new_path": "team/c", "repository": A}),
    (Kind.UNBIND, {"path": "team/b", "repository": B}),
    (Kind.SITE, {"settings": {}}),
]
Named = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class FeedRules:
    """What decides. Each field is the product's rule unless a test puts a wrong one in."""

    reader: type[FeedReader] = FeedReader
    feeder: type[Feeder] = Feeder
    is_doubt_ignored: bool = False  # after an append in doubt, go on in the same turn
    is_feed_unread: bool = False  # a new writer believes the marks and does not read the feed on


@dataclass
class Batch:
    """What one append has under way: feed records, or records of the state topic."""

    records: list[FeedRecord | FeedMark | FeedPlace]
    is_failed: bool = False


class Seat:
    """One process with a writer in it."""

    def __init__(self, name: str, feeder: Feeder) -> None:
        self.name = name
        self.feeder = feeder
        self.lives = 0
        self.is_up = True
        self.flying: list[Batch] = []
        self.begin()

    def begin(self) -> None:
        self.lives += 1
        self.feeder.begin(f"{self.name}.{self.lives}")


@dataclass
class Budget:
    """How often what goes wrong may happen."""

    writers: int = 3
    doubts: int = 2
    failures: int = 2
    repeats: int = 2
    cuts: int = 2


@dataclass
class Watcher:
    """A reader that began at some offset with nothing but the position there."""

    began_at: Offset
    reader: FeedReader


@dataclass
class FeedWorld:
    """The topics, the writers, and a reader from every offset."""

    rules: FeedRules = field(default_factory=FeedRules)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.messages = _make_messages()
        self.visible = dict.fromkeys(NAMES.values(), Seq(0))
        self.feed: list[FeedRecord] = []
        self.first = 0  # what lies before was cut
        self.marks = FeedMarks()
        self.seats: list[Seat] = []
        self.reader = self.rules.reader()
        self.watchers = [Watcher(Offset(0), self.rules.reader())]
        self.paths: dict[RepoId, RepoPath] = {}
        self.gone: set[RepoId] = set()

    # -- what can happen next

    def steps(self) -> Steps:
        steps: Steps = dict(self._world_steps())
        for seat in self.seats:
            steps.update(self._seat_steps(seat))
        return steps

    def _world_steps(self) -> Iterator[Named]:
        for name, repository in NAMES.items():
            if self.visible[repository] < len(self.messages[repository]):
                yield f"{name} is shown", partial(self.show, repository)
        if self.budget.writers:
            yield "a writer starts", self.start
        if self.budget.cuts and self.marks.place and self.marks.place.offset > self.first:
            yield "the feed is cut", self.cut

    def _seat_steps(self, seat: Seat) -> Iterator[Named]:
        if seat.flying:
            yield f"land {seat.name}", partial(self.land, seat)
        if not seat.is_up:
            return
        if seat.feeder.reader.position.offset < len(self.feed):
            yield f"{seat.name} hears", partial(self.hear, seat)
        yield f"{seat.name} acts", partial(self.act, seat)
        yield f"{seat.name} marks", partial(self.mark, seat)
        yield f"{seat.name} dies", partial(setattr, seat, "is_up", False)
        if self.budget.doubts and seat.flying:
            yield f"{seat.name} doubts", partial(self.doubt, seat)
        if self.budget.failures:
            yield f"{seat.name} fails", partial(self.fail, seat)

    def show(self, repository: RepoId) -> None:
        self.visible[repository] = Seq(self.visible[repository] + 1)
        for seat in self.seats:
            seat.feeder.note_visible({repository: self.visible[repository]}, 0.0)

    def cut(self) -> None:
        """Retention: what all who start anew have no need of."""
        self.budget.cuts -= 1
        assert self.marks.place is not None
        self.first = self.marks.place.offset

    # -- writers

    def start(self) -> None:
        self.budget.writers -= 1
        place, seqs = self.marks.place, self.marks.seqs()
        position = FeedPosition(place.offset, place.turn, place.number) if place else FEED_START
        if self.rules.is_feed_unread:
            position = self.reader.position
        paths = self._paths_at(seqs.get(CATALOGUE, Seq(0)))
        feeder = self.rules.feeder("h", position=position, seqs=seqs, paths=paths)
        seat = Seat(f"w{len(self.seats) + 1}", feeder)
        feeder.note_end(Offset(len(self.feed)))
        feeder.note_visible(self.visible, 0.0)
        self.seats.append(seat)

    def _paths_at(self, seq: Seq) -> dict[RepoId, RepoPath]:
        paths: dict[RepoId, RepoPath] = {}
        for kind, body in CATALOGUE_STORY[:seq]:
            _follow(paths, kind, body)
        return paths

    def hear(self, seat: Seat) -> None:
        offset = seat.feeder.reader.position.offset
        seat.feeder.take(self.feed[offset], Offset(offset + 1), 0.0)

    def act(self, seat: Seat) -> None:
        records = self._records(seat, seat.feeder.next_step(0.0))
        if records:
            seat.flying.append(Batch(records))

    def _records(self, seat: Seat, step: Step) -> list[FeedRecord | FeedMark | FeedPlace]:
        if step.act is Act.OVER:
            self._begin_anew(seat)
        if step.opening is not None:
            return [step.opening]
        entries: list[FeedEntry] = []
        for wanted in step.wanted:
            messages = self.messages[wanted.repository][wanted.after :][:2]
            logged = [Logged(message, START) for message in messages]
            entries += seat.feeder.compose(wanted, logged, Partition(0))
        return [*seat.feeder.send(entries, 0.0)]

    def _begin_anew(self, seat: Seat) -> None:
        seat.begin()
        seat.feeder.note_end(Offset(len(self.feed)))

    def fail(self, seat: Seat) -> None:
        """The log surely did not take the append that the writer makes now."""
        step = seat.feeder.next_step(0.0)
        if step.act in {Act.OPEN, Act.EMIT} and self._records(seat, step):
            self.budget.failures -= 1
            seat.feeder.withdraw()

    def doubt(self, seat: Seat) -> None:
        """The answer to an append is lost, before or after it lands."""
        self.budget.doubts -= 1
        if self.rules.is_doubt_ignored:
            seat.feeder.withdraw()
        else:
            self._begin_anew(seat)

    def mark(self, seat: Seat) -> None:
        """Publish marks, the place last; only under a turn of its own."""
        feeder = seat.feeder
        if feeder.is_open:
            position = feeder.reader.position
            turn = position.turn
            records: list[FeedRecord | FeedMark | FeedPlace] = [
                FeedMark(turn, r, seq or Seq(0), is_over=seq is None)
                for r, seq in feeder.take_dirty().items()
            ]
            seat.flying.append(Batch([*records, FeedPlace(turn, position.offset, position.number)]))

    # -- the log

    def land(self, seat: Seat) -> None:
        batch = seat.flying[0]
        record = batch.records.pop(0)
        if not batch.records:
            seat.flying.pop(0)
        if self.budget.repeats and len(self.feed) % 7 == 5 and not isinstance(record, FeedMark | FeedPlace):
            self.budget.repeats -= 1
            seat.flying.insert(0, Batch([record]))
        if isinstance(record, FeedMark | FeedPlace):
            self.marks.take(record)
        else:
            self._take(decode_feed_record(encode_feed_record(record)))

    def _take(self, record: FeedRecord) -> None:
        offset = Offset(len(self.feed))
        next_offset = Offset(offset + 1)
        self.feed.append(record)
        verdict = self.reader.take(record, next_offset)
        expect("NoGap", verdict is not FeedVerdict.GAP, record)
        for watcher in self.watchers:
            expect("Same", watcher.reader.take(record, next_offset) is verdict, (watcher.began_at, record))
        self.watchers.append(Watcher(next_offset, self.rules.reader(self.reader.position)))
        if isinstance(record, FeedEntry) and verdict is FeedVerdict.COUNTS:
            self._check_entry(record)

    # -- promises

    def _check_entry(self, entry: FeedEntry) -> None:
        repository = entry.repository
        expect("N1", entry.seq <= self.visible[repository], entry)
        expect("N2", entry.after == entry.seq - 1, entry)
        expect("N2", entry.digest == self.messages[repository][entry.after].digest, entry)
        if repository == CATALOGUE:
            _follow(self.paths, entry.kind, dict(entry.body))
            unbound = unbound_repository(entry)
            self.gone |= {unbound} if unbound else set()
        else:
            expect("Bound", entry.path == self.paths.get(repository), entry)

    def check(self) -> None:
        """Nothing more: each record is checked when it lands."""

    def come_to_rest(self) -> None:
        """Whatever is under way lands, another writer starts and does what is left."""
        for seat in self.seats:
            seat.is_up = False
            while seat.flying:
                self.land(seat)
        self.budget = Budget(writers=1, doubts=0, failures=0, repeats=0, cuts=0)
        self.start()
        seat = self.seats[-1]
        for _ in range(200):
            while seat.feeder.reader.position.offset < len(self.feed):
                self.hear(seat)
            self.act(seat)
            while seat.flying:
                self.land(seat)
        for repository in NAMES.values():
            if repository == CATALOGUE or repository in self.paths:
                expect(
                    "Complete", self.reader.seqs.get(repository, 0) == self.visible[repository], repository
                )
        expect("Behind", seat.feeder.behind() == 0)


def _make_messages() -> dict[RepoId, list[Message]]:
    catalogue = Chain(CATALOGUE)
    messages = {CATALOGUE: [catalogue.next(kind, body) for kind, body in CATALOGUE_STORY]}
    for repository in (A, B):
        chain = Chain(repository)
        messages[repository] = [chain.next(Kind.CREATED if n == 0 else Kind.PUSH) for n in range(HEAD)]
    return messages


def _follow(paths: dict[RepoId, RepoPath], kind: str, body: dict[str, Json]) -> None:
    repository = RepoId(str(body.get("repository", "")))
    if kind == Kind.BIND:
        paths[repository] = RepoPath(str(body["path"]))
    elif kind == Kind.RENAME:
        paths[repository] = RepoPath(str(body["new_path"]))
    elif kind == Kind.UNBIND:
        paths.pop(repository, None)
