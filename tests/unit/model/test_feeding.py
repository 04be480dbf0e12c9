"""What the feed's writer does next."""

from collections.abc import Mapping

import pytest

from hgfleet.model.feed import FEED_START, FeedPosition
from hgfleet.model.feed_records import OVERRUN, FeedEntry, FeedRecord, Opening
from hgfleet.model.feeding import Act, Feeder, Logged, Wanted
from hgfleet.model.ids import CATALOGUE, START, Offset, Partition, RepoId, RepoPath, Seq
from hgfleet.model.message import Kind
from tests.support.messages import R1, R2, Chain

PATHS = {R1: RepoPath("one"), R2: RepoPath("two")}


class Writer:
    """A feeder whose appends land at once, or when told."""

    def __init__(
        self,
        seqs: Mapping[RepoId, Seq] | None = None,
        paths: Mapping[RepoId, RepoPath] | None = None,
        position: FeedPosition = FEED_START,
    ) -> None:
        self.feeder = Feeder("h", position=position, seqs=seqs, paths=PATHS if paths is None else paths)
        self.feeder.begin("life")
        self.feeder.note_end(position.offset)

    def land(self, record: FeedRecord, now: float = 0.0) -> None:
        self.feeder.take(record, Offset(self.feeder.reader.position.offset + 1), now)

    def open(self) -> None:
        opening = self.feeder.next_step(0.0).opening
        assert opening is not None
        self.land(opening)

    def show(self, now: float = 0.0, **seqs: int) -> None:
        names = {"one": R1, "two": R2, "catalogue": CATALOGUE}
        self.feeder.note_visible({names[name]: Seq(seq) for name, seq in seqs.items()}, now)

    def emit(self, now: float = 0.0, limit: int = 100) -> list[FeedEntry]:
        step = self.feeder.next_step(now)
        entries: list[FeedEntry] = []
        for wanted in step.wanted:
            entries += self.feeder.compose(wanted, _messages(wanted)[:limit], Partition(0))
        return self.feeder.send(entries, now)


def _messages(wanted: Wanted) -> list[Logged]:
    chain = Chain(wanted.repository)
    made = [chain.next(Kind.PUSH) for _ in range(wanted.upto)]
    return [Logged(message, START) for message in made[wanted.after :]]


@pytest.fixture
def writer() -> Writer:
    writer = Writer()
    writer.open()
    return writer


def test_it_reads_to_the_end_then_opens_the_next_turn() -> None:
    feeder = Feeder("h", position=FeedPosition(Offset(4), 7, 2), paths=PATHS)
    feeder.begin("life")
    assert feeder.next_step(0.0).act is Act.WAIT
    feeder.note_end(Offset(5))
    assert feeder.next_step(0.0).act is Act.WAIT
    feeder.take(None, Offset(5), 0.0)
    assert feeder.next_step(3.0).opening == Opening(8, "h", "life", 3.0)
    assert feeder.next_step(0.0).act is Act.WAIT


def test_another_writers_opening_ends_its_life(writer: Writer) -> None:
    writer.land(Opening(2, "other", "life2", 0.0))
    assert writer.feeder.next_step(0.0).act is Act.OVER


def test_of_two_bids_for_a_turn_the_second_is_over() -> None:
    writer = Writer()
    mine = writer.feeder.next_step(0.0).opening
    assert mine is not None
    writer.land(Opening(1, "other", "life2", 0.0))
    assert writer.feeder.next_step(0.0).act is Act.OVER
    writer.land(mine)
    assert writer.feeder.next_step(0.0).act is Act.OVER


def test_one_append_is_in_flight(writer: Writer) -> None:
    writer.show(one=2)
    sent = writer.emit()
    assert [(e.number, e.seq, e.path) for e in sent] == [(1, 1, "one"), (2, 2, "one")]
    writer.show(two=1)
    assert writer.emit() == []
    writer.land(sent[0])
    assert writer.feeder.next_step(0.0).act is Act.WAIT
    writer.land(sent[1])
    assert [(e.number, e.seq, e.path) for e in writer.emit()] == [(3, 1, "two")]


def test_an_append_that_surely_failed_is_made_again(writer: Writer) -> None:
    writer.show(one=1)
    sent = writer.emit()
    writer.feeder.withdraw()
    assert writer.emit() == sent


def test_the_catalogue_goes_first_and_binds() -> None:
    writer = Writer(paths={})
    writer.open()
    writer.show(one=1)
    assert writer.feeder.next_step(0.0).act is Act.WAIT
    assert writer.feeder.behind() == 0
    writer.show(catalogue=1)
    assert [wanted.repository for wanted in writer.feeder.next_step(0.0).wanted] == [CATALOGUE]
    bind = Chain(CATALOGUE).next(Kind.BIND, {"path": "new", "repository": R1, "partition": 0})
    entries = writer.feeder.compose(Wanted(CATALOGUE, Seq(0), Seq(1)), [Logged(bind, START)], Partition(0))
    for entry in writer.feeder.send(entries, 0.0):
        writer.land(entry)
    assert [(e.seq, e.path) for e in writer.emit()] == [(1, "new")]


def test_nothing_of_an_unbound_repository_enters_any_more(writer: Writer) -> None:
    writer.show(one=3, catalogue=1)
    unbind = Chain(CATALOGUE).next(Kind.UNBIND, {"path": "one", "repository": R1})
    entries = writer.feeder.compose(Wanted(CATALOGUE, Seq(0), Seq(1)), [Logged(unbind, START)], Partition(0))
    for entry in writer.feeder.send(entries, 0.0):
        writer.land(entry)
    assert writer.feeder.next_step(0.0).act is Act.WAIT
    assert writer.feeder.take_dirty() == {CATALOGUE: 1, R1: None}
    writer.show(one=4)
    assert writer.feeder.next_step(0.0).act is Act.WAIT


def test_what_is_not_readable_yet_keeps_nobody_else(writer: Writer) -> None:
    writer.show(one=1)
    assert writer.emit(limit=0) == []
    writer.show(two=1)
    assert [e.repository for e in writer.emit()] == [R2]
    assert writer.feeder.behind() == 2
    writer.feeder.withdraw()
    writer.feeder.retry_stalled()
    assert [e.repository for e in writer.emit()] == [R1, R2]


def test_what_the_log_lost_is_one_entry(writer: Writer) -> None:
    writer.show(one=5)
    [wanted] = writer.feeder.next_step(0.0).wanted
    [entry] = writer.feeder.send([writer.feeder.overrun(wanted, Partition(2), 9.0)], 0.0)
    assert (entry.kind, entry.after, entry.seq, entry.path, entry.at) == (OVERRUN, 0, 5, "one", 9.0)
    writer.land(entry)
    assert writer.feeder.behind() == 0


def test_it_goes_on_behind_what_the_marks_say() -> None:
    writer = Writer({R1: Seq(4)})
    writer.open()
    writer.show(one=5)
    assert [e.seq for e in writer.emit()] == [5]


def test_how_far_it_is_behind_and_since_when(writer: Writer) -> None:
    assert (writer.feeder.behind(), writer.feeder.behind_since()) == (0, None)
    writer.show(10.0, one=2)
    writer.show(12.0, two=1)
    assert (writer.feeder.behind(), writer.feeder.behind_since()) == (3, 10.0)
    sent = writer.emit(14.0)
    writer.show(15.0, one=3)
    for entry in sent:
        writer.land(entry, 16.0)
    assert (writer.feeder.behind(), writer.feeder.behind_since()) == (1, 14.0)


def test_many_repositories_take_turns(writer: Writer) -> None:
    ids = [RepoId(f"{number:032x}") for number in range(1, 200)]
    feeder = Feeder("h", paths={each: RepoPath("p") for each in ids})
    writer.feeder = feeder
    feeder.begin("life")
    feeder.note_end(Offset(0))
    writer.open()
    feeder.note_visible(dict.fromkeys(ids, Seq(2)), 0.0)
    seen: list[RepoId] = []
    for _ in range(4):
        for entry in writer.emit(limit=1):
            seen.append(entry.repository)
            writer.land(entry)
    assert sorted(set(seen)) == ids
