"""The feed through a real log agent: its operations, and its writer when the log misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from hgfleet.adapters.agent_answers import FeedEnd, FeedEvent, FeedItem, FeedItems, FeedRestart
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.adapters.feed_stream import CountedEntry, FeedStream
from hgfleet.errors import PoisonError, RejectedError, TransientError
from hgfleet.model.feed import FEED_START, FeedReader, FeedVerdict
from hgfleet.model.feed_records import OVERRUN, FeedEntry, Opening, decode_feed_record, encode_feed_record
from hgfleet.model.fleet import FleetView
from hgfleet.model.ids import CATALOGUE, HostName, Offset, Partition, RepoId, Seq
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication.feed_keeper import FeedKeeper, feed_start
from hgfleet.replication.feed_writer import FeedOptions, FeedStart
from tests.support.agents import (
    AgentPlace,
    ThreadedAgent,
    agent_process,
    create_repository,
    push,
    running_agent,
    short_directory,
)
from tests.support.faulty_log import FaultyLog, Mishap
from tests.support.waiting import wait_until


@pytest.fixture
def place() -> Iterator[AgentPlace]:
    with short_directory() as directory:
        yield AgentPlace(directory)


@pytest.fixture
def log(place: AgentPlace) -> Iterator[FaultyLog]:
    log = place.open_log()
    yield FaultyLog(log)
    log.close()


@pytest.fixture
def agent(place: AgentPlace, log: FaultyLog) -> Iterator[ThreadedAgent]:
    with running_agent(place.options(log, "log-id", append_deadline_seconds=1.0)) as agent:
        yield agent


@pytest.fixture
def client(agent: ThreadedAgent, place: AgentPlace) -> Iterator[LogAgentClient]:
    assert agent.is_running
    with place.client() as client:
        yield client


def opening(turn: int) -> bytes:
    return encode_feed_record(Opening(turn, "h", "l", 1.0))


def until_end(stream: EventStream[FeedEvent]) -> list[FeedItem]:
    """Return what a stream brings before its end."""
    items: list[FeedItem] = []
    while not isinstance(event := stream.next_event(10), FeedEnd):
        assert isinstance(event, FeedItems)
        items += event.items
    return items


# ---- the operations


def test_a_follower_gets_what_is_there_and_then_what_comes(client: LogAgentClient) -> None:
    assert client.feed_append([opening(1), opening(2)]) == 2
    with client.feed_follow(Offset(1)) as stream, client.feed_follow() as from_now:
        assert [item.wire for item in until_end(stream)] == [opening(2)]
        assert until_end(from_now) == []
        client.feed_append([opening(3)])
        for each in (stream, from_now):
            event = each.next_event(10)
            assert isinstance(event, FeedItems)
            assert [(item.wire, item.offset, item.next_offset) for item in event.items] == [
                (opening(3), 2, 3)
            ]


def test_a_follower_hears_where_the_feed_begins_when_it_is_not_where_it_asks(
    client: LogAgentClient, place: AgentPlace
) -> None:
    client.feed_append([opening(turn) for turn in range(1, 6)])
    with closing(place.open_log()) as log:
        log.drop_before(Topic.FEED, Partition(0), Offset(3))
    for asked in (1, 70):
        with client.feed_follow(Offset(asked)) as stream:
            assert stream.next_event(10) == FeedRestart(Offset(3))
            assert [item.offset for item in until_end(stream)] == [3, 4]


def test_a_long_feed_comes_in_pieces_and_whole(client: LogAgentClient) -> None:
    wires = [encode_feed_record(Opening(turn, "h" * 900, "l", 1.0)) for turn in range(1000)]
    client.feed_append(wires)
    with client.feed_follow(Offset(0)) as stream:
        assert [item.wire for item in until_end(stream)] == wires


@pytest.mark.parametrize("wires", [[], [b""], [b"hgfleet-feed/1\n{}"], [opening(1), b"junk"]])
def test_what_is_no_feed_record_is_not_appended(client: LogAgentClient, wires: list[bytes]) -> None:
    with pytest.raises(RejectedError) as caught:
        client.feed_append(wires)
    assert caught.value.code == "request.bad"
    with client.feed_follow(Offset(0)) as stream:
        assert until_end(stream) == []


def test_a_bad_offset_is_refused(client: LogAgentClient) -> None:
    with client.feed_follow(Offset(-1)) as stream, pytest.raises(RejectedError):
        stream.next_event(10)


# ---- the writer


class Coordinator:
    """What a coordinator does for the feed, without mirrors: it says what is visible and keeps the marks."""

    def __init__(self, place: AgentPlace) -> None:
        self.view = FleetView(is_cleaning=True)
        with place.client() as client, client.state_follow() as events:
            for event in events:
                if not hasattr(event, "records"):
                    break
                for item in event.records:
                    self.view.take(item.key, item.value, item.offset)
        options = FeedOptions(HostName("primary"), place.socket)
        self.keeper = FeedKeeper(options, self._find_start)

    def _find_start(self) -> FeedStart:
        return feed_start(self.view)

    def put(self, seqs: dict[RepoId, int]) -> None:
        self.keeper.turn({repository: Seq(seq) for repository, seq in seqs.items()})


@contextmanager
def writing(place: AgentPlace) -> Iterator[Coordinator]:
    coordinator = Coordinator(place)
    with coordinator.keeper:
        yield coordinator


def counted(client: LogAgentClient) -> list[tuple[RepoId, str, int]]:
    """Return what counts, and check that no reader from elsewhere thinks otherwise."""
    with client.feed_follow(Offset(0)) as stream:
        items = until_end(stream)
    reader, others, found = FeedReader(), [], []
    for item in items:
        record = decode_feed_record(item.wire)
        verdict = reader.take(record, item.next_offset)
        assert {other.take(record, item.next_offset) for other in others} <= {verdict}
        others.append(FeedReader(reader.position))
        if isinstance(record, FeedEntry) and verdict is not FeedVerdict.IGNORED:
            assert verdict is FeedVerdict.COUNTS
            found.append((record.repository, record.kind, int(record.seq)))
    return found


def entries(client: LogAgentClient, repository: RepoId) -> list[int]:
    return [seq for name, _, seq in counted(client) if name == repository]


def wait_entries(client: LogAgentClient, repository: RepoId, last: int) -> None:
    wait_until(lambda: entries(client, repository)[-1:] == [last], what=f"{last} enters")
    assert entries(client, repository) == list(range(1, last + 1))


@pytest.fixture
def repository(client: LogAgentClient) -> RepoId:
    repository = create_repository(client)
    for number in range(3):
        push(client, repository, str(number))
    return repository


def catalogue_seq(client: LogAgentClient) -> int:
    return client.paths()[1]


def test_a_repository_enters_once_it_is_bound_in_the_feed(
    client: LogAgentClient, place: AgentPlace, repository: RepoId
) -> None:
    with writing(place) as coordinator:
        coordinator.put({repository: 2})
        coordinator.put({CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 2)
    kinds = [kind for _, kind, _ in counted(client)]
    assert kinds == ["epoch", "bind", "created", "push"]


@pytest.mark.parametrize(
    "mishaps",
    [
        [Mishap.REFUSED] * 3,
        [Mishap.LOST],
        [Mishap.UNANSWERED],
        [Mishap.TWICE] * 2,
        [Mishap.LATE],
        [Mishap.UNANSWERED, Mishap.LATE, Mishap.REFUSED, Mishap.LOST, Mishap.UNANSWERED],
    ],
)
def test_whatever_the_log_does_with_an_append_each_message_enters_once(
    client: LogAgentClient, place: AgentPlace, repository: RepoId, log: FaultyLog, mishaps: list[Mishap]
) -> None:
    with writing(place) as coordinator:
        coordinator.put({repository: 2, CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 2)
        log.plan(Topic.FEED, *mishaps)
        coordinator.put({repository: 4})
        wait_entries(client, repository, 4)
        log.land()
        last = push(client, repository, "last").seq
        coordinator.put({repository: last})
        wait_entries(client, repository, 5)
    assert log.planned == 0


def test_two_writers_at_once_and_a_restart_repeat_nothing(
    client: LogAgentClient, place: AgentPlace, repository: RepoId
) -> None:
    with writing(place) as one:
        one.put({repository: 2, CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 2)
        with writing(place) as two:
            for each in (one, two):
                each.put({repository: 4, CATALOGUE: catalogue_seq(client)})
            wait_entries(client, repository, 4)
    with writing(place) as three:
        three.put({repository: push(client, repository, "last").seq, CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 5)


def test_what_was_cut_from_the_feed_does_not_enter_again(
    client: LogAgentClient, place: AgentPlace, repository: RepoId
) -> None:
    everything = {repository: 4, CATALOGUE: catalogue_seq(client)}
    with writing(place) as coordinator:
        coordinator.put(everything)
        wait_entries(client, repository, 4)
    end = client.feed_append([opening(50)])
    with closing(place.open_log()) as log:
        log.drop_before(Topic.FEED, Partition(0), end)
    with writing(place) as coordinator:
        coordinator.put(everything)
        everything[repository] = push(client, repository, "last").seq
        coordinator.put(everything)
        with client.feed_follow(Offset(end - 1)) as stream:
            wait_until(lambda: _ends_with(stream, repository, 5), what="the last push enters")


def _ends_with(stream: EventStream[FeedEvent], repository: RepoId, seq: int) -> bool:
    event = stream.next_event(1)
    if not isinstance(event, FeedItems):
        return False
    records = [decode_feed_record(item.wire) for item in event.items]
    found = [record for record in records if isinstance(record, FeedEntry)]
    assert all((record.repository, record.seq) == (repository, seq) for record in found)
    return bool(found)


def test_messages_that_the_log_no_longer_has_are_said_to_be_lost(place: AgentPlace, log: FaultyLog) -> None:
    with running_agent(place.options(log, "log-id")), place.client() as client:
        repository = create_repository(client)
        for number in range(3):
            push(client, repository, str(number))
        last = client.last(repository)
    assert last.partition is not None
    log.drop_before(Topic.PUSHDATA, last.partition, last.position.offset)
    with running_agent(place.options(log, "log-id")), place.client() as client:  # the first had it in memory
        with writing(place) as coordinator:
            coordinator.put({repository: 3, CATALOGUE: catalogue_seq(client)})
            wait_until(lambda: entries(client, repository) == [3], what="the loss is said")
            coordinator.put({repository: push(client, repository, "more").seq})
            wait_until(lambda: entries(client, repository) == [3, 4, 5], what="it goes on")
        assert (repository, OVERRUN, 3) in counted(client)


def test_junk_in_the_feed_is_passed_over(
    client: LogAgentClient, place: AgentPlace, repository: RepoId, log: FaultyLog
) -> None:
    log.append([NewRecord(Topic.FEED, Partition(0), b"junk")])
    with writing(place) as coordinator:
        coordinator.put({repository: 4, CATALOGUE: catalogue_seq(client)})
        with client.feed_follow(Offset(1)) as stream:
            wait_until(lambda: _has_entry(stream, repository, 4), what="everything enters")


def _has_entry(stream: EventStream[FeedEvent], repository: RepoId, seq: int) -> bool:
    event = stream.next_event(1)
    items = event.items if isinstance(event, FeedItems) else ()
    records = [decode_feed_record(item.wire) for item in items]
    return any(isinstance(r, FeedEntry) and (r.repository, r.seq) == (repository, seq) for r in records)


def test_a_log_that_is_away_for_a_while_delays_the_feed_only(
    client: LogAgentClient, place: AgentPlace, repository: RepoId, log: FaultyLog
) -> None:
    with writing(place) as coordinator:
        coordinator.put({repository: 2, CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 2)
        log.is_unreachable = True
        coordinator.put({repository: 4})
        with pytest.raises(TransientError):
            client.feed_append([opening(1)])
        assert entries(client, repository) == [1, 2]
        log.is_unreachable = False
        wait_entries(client, repository, 4)


def test_a_restart_of_the_agent_loses_and_repeats_nothing(place: AgentPlace) -> None:
    with agent_process(place) as agent, place.client() as client:
        repository = create_repository(client)
        for number in range(3):
            push(client, repository, str(number))
        with writing(place) as coordinator:
            coordinator.put({repository: 2, CATALOGUE: catalogue_seq(client)})
            wait_entries(client, repository, 2)
            agent.restart()
            coordinator.put({repository: 4})
            wait_entries(client, repository, 4)


def test_a_writer_that_hangs_or_cannot_go_on_is_told_to_be_behind(
    client: LogAgentClient, place: AgentPlace, repository: RepoId, log: FaultyLog
) -> None:
    with writing(place) as coordinator:
        coordinator.put({repository: 2, CATALOGUE: catalogue_seq(client)})
        wait_until(lambda: coordinator.keeper.lag.behind == 0, what="it is level")
        log.is_unreachable = True
        coordinator.put({repository: 4})
        wait_until(lambda: coordinator.keeper.lag.behind == 2, what="it is behind")
        assert coordinator.keeper.lag.since > 0
        log.is_unreachable = False
        wait_until(lambda: coordinator.keeper.lag.behind == 0, what="it is level again")
        log.append([NewRecord(Topic.FEED, Partition(0), b"hgfleet-feed/2\n{}")])
        wait_until(lambda: coordinator.keeper.lag.behind == 1, what="it cannot go on")


# ---- its readers


def test_a_reader_goes_on_behind_the_entry_that_it_is_done_with(
    client: LogAgentClient, place: AgentPlace, repository: RepoId
) -> None:
    with writing(place) as coordinator, FeedStream(client) as live:
        coordinator.put({repository: 4, CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 4)
        seen: list[CountedEntry] = []
        while len(seen) < 6:
            seen += live.next_entries(10)
    assert [each.entry.kind for each in seen] == ["epoch", "bind", "created", "push", "push", "push"]
    assert not any(each.is_gap for each in seen)
    for place_in_it, counted_entry in enumerate(seen):
        with FeedStream(client, counted_entry.position) as stream:
            rest: list[CountedEntry] = []
            while len(rest) < len(seen) - place_in_it - 1:
                rest += stream.next_entries(10)
        assert rest == seen[place_in_it + 1 :]


def test_a_reader_whose_place_was_cut_away_hears_of_a_gap(
    client: LogAgentClient, place: AgentPlace, repository: RepoId
) -> None:
    with writing(place) as coordinator:
        coordinator.put({repository: 4, CATALOGUE: catalogue_seq(client)})
        wait_entries(client, repository, 4)
    with FeedStream(client, FEED_START) as stream:
        while not (first := stream.next_entries(10)):
            pass
    with closing(place.open_log()) as log:
        log.drop_before(Topic.FEED, Partition(0), Offset(4))
    with FeedStream(client, first[0].position) as stream:
        while not (rest := stream.next_entries(10)):
            pass
    assert (rest[0].offset, [each.is_gap for each in rest][:2]) == (4, [True, False])


def test_a_reader_does_not_pass_over_what_only_a_newer_release_can_read(
    client: LogAgentClient, log: FaultyLog
) -> None:
    log.append([NewRecord(Topic.FEED, Partition(0), wire) for wire in (b"junk", b"hgfleet-feed/2\n{}")])
    with FeedStream(client, FEED_START) as stream, pytest.raises(PoisonError) as caught:
        stream.next_entries(10)
    assert caught.value.code == "feed.too-new"
