"""The agent's socket: many clients, bad clients, slow followers, and who may talk at all."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hgfleet.adapters.agent_answers import (
    Advanced,
    FollowEvent,
    LogSnapshot,
    StateEnd,
    StateEvent,
    StateItem,
    StateRecords,
)
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import FleetError, InDoubtError, PoisonError, RejectedError, TransientError
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Heartbeat,
    Member,
    Report,
    Stage,
    StateRecord,
    Ticket,
)
from hgfleet.model.frames import encode_frame
from hgfleet.model.ids import CATALOGUE, HostName, Offset, Partition, RepoId, Seq
from hgfleet.model.message import Kind, Topic
from hgfleet.ports.replication_log import NewRecord
from tests.support.agents import (
    AgentPlace,
    ThreadedAgent,
    create_repository,
    push,
    push_request,
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


# ---- clients


def test_the_socket_is_private(client: LogAgentClient, place: AgentPlace) -> None:
    assert place.socket.stat().st_mode & 0o777 == 0o600
    assert client.hello().host == "primary"


def test_another_account_is_not_served(
    client: LogAgentClient, place: AgentPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the file's mode would let it in. Only root can become somebody else."""
    if os.geteuid() != 0:
        monkeypatch.setattr("hgfleet.replication.agent_server.os.geteuid", lambda: 4242)
        with raw(place) as connection:
            connection.sendall(encode_frame({"op": "hello"}))
            assert read_all(connection) == b""
        return
    place.directory.chmod(0o755)
    place.socket.chmod(0o666)
    child = os.fork()
    if child == 0:
        os._exit(_answers_as_somebody_else(place.socket))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.hello().host == "primary"


def _answers_as_somebody_else(path: Path) -> int:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(path))
    try:
        connection.sendall(encode_frame({"op": "hello"}))
        return 0 if connection.recv(100) == b"" else 1
    except ConnectionError:
        return 0


def test_hundreds_of_connections_are_served(client: LogAgentClient, place: AgentPlace) -> None:
    repository = create_repository(client)
    clients = [place.client() for _ in range(300)]
    try:
        assert {one.hello().life for one in clients} == {client.hello().life}
        with ThreadPoolExecutor(16) as pool:
            assert {last.seq for last in pool.map(lambda one: one.last(repository), clients)} == {1}
        push(clients[-1], repository, "one")
        assert {one.last(repository).seq for one in clients} == {2}
    finally:
        for one in clients:
            one.close()


def test_a_forked_child_uses_a_connection_of_its_own(client: LogAgentClient) -> None:
    repository = create_repository(client)
    child = os.fork()
    if child == 0:
        seq = client.last(repository).seq
        client.close()
        os._exit(0 if seq == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.last(repository).seq == 1


def test_a_question_survives_a_restart_of_the_agent(place: AgentPlace, log: FaultyLog) -> None:
    with place.client() as client:
        with running_agent(place.options(log, "log-id")):
            repository = create_repository(client)
        with running_agent(place.options(log, "log-id")):
            assert client.last(repository).seq == 1
            push(client, repository, "one")


def test_without_an_agent_everything_is_refused_and_nothing_handed_over(place: AgentPlace) -> None:
    with place.client() as client:
        for ask in (
            client.hello,
            client.follow,
            lambda: create_repository(client),
            lambda: client.state_publish({"k": 1}),
        ):
            with pytest.raises(TransientError) as caught:
                ask()
            assert caught.value.code == "local.unreachable"


# ---- bad clients


def raw(place: AgentPlace) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(place.socket))
    return connection


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionError:
        pass
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100,
        struct.pack(">II", 3, 0) + b"{{{",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 4, 0) + b"\xff\xfe\xfd\xfc",
        struct.pack(">II", 200_000, 0) + b"[" * 200_000,
        struct.pack(">II", 2**32 - 1, 2**32 - 1),
    ],
    ids=["http", "no-json", "no-object", "no-text", "deep", "huge"],
)
def test_a_frame_that_is_none_gets_an_error_and_ends_its_connection_only(
    client: LogAgentClient, place: AgentPlace, data: bytes
) -> None:
    repository = create_repository(client)
    with raw(place) as connection:
        connection.sendall(data)
        answer = read_all(connection)
    header = json.loads(answer[8:])
    assert header["ok"] is False
    assert header["error"]["code"] == "frame.damaged"
    assert client.last(repository).seq == 1


def test_a_frame_larger_than_a_request_may_be_is_read_and_refused(
    client: LogAgentClient, place: AgentPlace
) -> None:
    with LocalClient(place.socket) as connection:
        with pytest.raises(PoisonError) as caught:
            connection.call("append", b"x" * 20_000_000)
        assert caught.value.code == "frame.damaged"
    assert client.hello().is_serving


def test_a_connection_that_ends_within_a_frame_harms_nobody(
    client: LogAgentClient, place: AgentPlace
) -> None:
    whole = encode_frame({"op": "hello"}, b"x" * 100)
    for length in (0, 1, 8, 12, len(whole) - 1):
        with raw(place) as connection:
            connection.sendall(whole[:length])
    assert client.hello().is_serving


def test_an_unknown_operation_is_named_and_ends_the_connection(
    client: LogAgentClient, place: AgentPlace
) -> None:
    for op in ("no-such-thing", None, 7, {"x": 1}, "__init__"):
        with LocalClient(place.socket) as connection:
            with pytest.raises(RejectedError) as caught:
                connection.call(op)  # type: ignore[arg-type]
            assert caught.value.code == "op.unknown"
            with pytest.raises(FleetError):
                connection.call("hello")
    assert client.hello().is_serving


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("last", {}),
        ("last", {"repository": "x"}),
        ("last", {"repository": 7}),
        ("read", {"repository": "0" * 32, "after_seq": -1, "max_bytes": 1}),
        ("read", {"repository": "0" * 32, "after_seq": 10**30, "max_bytes": 1}),
        ("read", {"repository": "0" * 32, "after_seq": True, "max_bytes": 1}),
        ("append", {"repository": "a" * 32}),
        ("create", {"path": ["x"], "settings": {}, "identity": "a", "trace": "b"}),
        ("create", {"path": "x", "settings": [], "identity": "a", "trace": "b"}),
        ("delete", {"path": "x", "identity": None, "trace": "b"}),
        ("state_publish", {"records": {}}),
        ("state_publish", {"records": []}),
        ("state_publish", {"records": [{"key": "", "value": 1}]}),
        ("state_publish", {"records": [7]}),
        ("wait_visible", {"repository": "0" * 32, "seq": 1, "timeout_seconds": "x"}),
        ("wait_visible", {"repository": "0" * 32, "seq": 1, "timeout_seconds": -1}),
        ("wait_visible", {"repository": "0" * 32, "seq": 1, "timeout_seconds": float("inf")}),
        ("records", {"topic": "nonsense", "partition": 0, "offset": 0, "max_bytes": 1}),
        ("blob_put", {"path": "/nowhere", "sha256": "0" * 64, "size_bytes": 1}),
        ("blob_get", {"path": "/nowhere", "sha256": "zz"}),
    ],
)
def test_bad_fields_are_refused_and_the_connection_goes_on(
    client: LogAgentClient, place: AgentPlace, op: str, fields: dict[str, object]
) -> None:
    with LocalClient(place.socket) as connection:
        with pytest.raises(RejectedError):
            connection.call(op, **fields)
        assert connection.call("hello").header["ok"]
    assert client.last(CATALOGUE).seq == 1


# ---- following


def advanced_of(stream: EventStream[FollowEvent], repository: RepoId) -> Advanced:
    while (event := stream.next_event(10)) is not None:
        if isinstance(event, Advanced) and event.repository == repository:
            return event
    raise AssertionError("no such event came")


def test_a_follower_gets_what_there_is_and_then_what_comes(client: LogAgentClient) -> None:
    repository = create_repository(client)
    gone = create_repository(client, "gone")
    client.delete("gone", identity="alice", trace="d")
    with client.follow() as stream:
        snapshot = stream.next_event(10)
        assert isinstance(snapshot, LogSnapshot)
        assert snapshot.catalogue_seq == client.last(CATALOGUE).seq
        assert snapshot.repositories[repository].seq == 1
        assert snapshot.repositories[gone].is_deleted
        push(client, repository, "one")
        advanced = stream.next_event(10)
        assert advanced == Advanced(repository, 2, snapshot.repositories[repository].partition)  # type: ignore[arg-type]
        create_repository(client, "another")
        assert advanced_of(stream, CATALOGUE).seq == client.last(CATALOGUE).seq


def test_a_follower_that_does_not_read_hears_of_the_last_messages_and_delays_nobody(
    client: LogAgentClient,
) -> None:
    repositories = [create_repository(client, f"app{number}") for number in range(4)]
    with client.follow() as stream:
        for number in range(60):
            for repository in repositories:
                push(client, repository, f"{number}")
        seen: dict[RepoId, int] = {}
        wanted = {repository: client.last(repository).seq for repository in repositories}
        while {name: seen.get(name) for name in wanted} != wanted:
            event = stream.next_event(10)
            assert event is not None
            if isinstance(event, Advanced):
                assert event.seq > seen.get(event.repository, 0)
                seen[event.repository] = event.seq


def test_a_follower_that_goes_away_is_forgotten(client: LogAgentClient, place: AgentPlace) -> None:
    repository = create_repository(client)
    for _ in range(5):
        with client.follow() as stream:
            stream.next_event(10)
    push(client, repository, "one")
    assert client.last(repository).seq == 2


def test_a_stream_ends_with_an_error_when_the_agent_stops(place: AgentPlace, log: FaultyLog) -> None:
    with place.client() as client:
        with running_agent(place.options(log, "log-id")):
            stream = client.follow()
            stream.next_event(10)
        with pytest.raises(InDoubtError) as caught:
            stream.next_event(10)
        assert caught.value.code == "local.cut-off"
        stream.close()


# ---- the state topic


def state_of(stream: EventStream[StateEvent]) -> tuple[list[StateItem], StateEnd]:
    items: list[StateItem] = []
    while not isinstance(event := stream.next_event(10), StateEnd):
        assert isinstance(event, StateRecords)
        items += event.records
    return items, event


def test_state_is_published_and_followed_in_order(client: LogAgentClient) -> None:
    first = client.state_publish({"a": {"n": 1}, "b": [1, 2]})
    assert client.state_end() == first
    with client.state_follow() as stream:
        items, end = state_of(stream)
        assert [(item.key, item.value) for item in items] == [("a", {"n": 1}), ("b", [1, 2])]
        assert end.offset == first
        client.state_publish({"a": None, "ä": "x"})
        event = stream.next_event(10)
        assert isinstance(event, StateRecords)
        assert [(item.key, item.value) for item in event.records] == [("a", None), ("ä", "x")]
        assert event.records[-1].offset + 1 == client.state_end()


def test_a_follower_of_an_empty_state_topic_hears_that_it_is_empty(client: LogAgentClient) -> None:
    with client.state_follow() as stream:
        assert isinstance(stream.next_event(10), StateEnd)


def test_a_long_state_topic_comes_in_pieces_and_whole(client: LogAgentClient) -> None:
    for start in range(0, 2000, 500):
        client.state_publish({f"key/{number}": "x" * 500 for number in range(start, start + 500)})
    with client.state_follow() as stream:
        items, _ = state_of(stream)
    assert [item.key for item in items] == [f"key/{number}" for number in range(2000)]


def test_an_unconfirmed_publication_is_in_doubt_and_a_refused_one_is_not(
    client: LogAgentClient, log: FaultyLog
) -> None:
    log.is_unreachable = True
    with pytest.raises(TransientError):
        client.state_publish({"a": 1})
    log.is_unreachable = False
    client.state_publish({"a": 2})
    assert log.planned == 0


def test_damaged_state_is_handed_on_as_what_no_reader_knows(client: LogAgentClient, log: FaultyLog) -> None:
    log.append([NewRecord(Topic.STATE, Partition(0), b"{not json", b"member/x/1")])
    with client.state_follow() as stream:
        items, _ = state_of(stream)
    assert [(item.key, item.value) for item in items] == [("member/x/1", "damaged")]


# ---- visibility


def publish(client: LogAgentClient, *records: StateRecord) -> int:
    return client.state_publish({record.key: record.value for record in records})


def serving_mirrors(client: LogAgentClient, repository: RepoId, *names: str) -> None:
    """Publish what mirrors in service and their coordinator would."""
    claim = Offset(publish(client, Claim(HostName("primary"), "life")) - 1)
    for number, name in enumerate(names, 1):
        publish(client, Heartbeat(member(name), Stage.SERVING), Admit(Ticket(claim, number), member(name)))
        report(client, name, repository, 1)


def member(name: str) -> Member:
    return Member(HostName(name), 1)


def report(client: LogAgentClient, name: str, repository: RepoId, seq: int) -> None:
    publish(client, Report(member(name), repository, applied=Seq(seq), exposed=Seq(seq)))


def test_a_change_is_visible_when_every_mirror_in_service_shows_it(client: LogAgentClient) -> None:
    repository = create_repository(client)
    serving_mirrors(client, repository, "one", "two")
    accepted = push(client, repository, "text")
    early = client.wait_visible(repository, accepted.seq, 0.05)
    assert (early.is_visible, sorted(early.mirrors), sorted(early.late)) == (
        False,
        ["one", "two"],
        ["one", "two"],
    )
    report(client, "one", repository, accepted.seq)
    report(client, "two", repository, accepted.seq)
    now = client.wait_visible(repository, accepted.seq, 5)
    assert (now.is_visible, sorted(now.mirrors), now.late) == (True, ["one", "two"], ())


def test_a_wait_ends_as_soon_as_the_last_mirror_shows_it(client: LogAgentClient, place: AgentPlace) -> None:
    repository = create_repository(client)
    serving_mirrors(client, repository, "one")
    accepted = push(client, repository, "text")
    with ThreadPoolExecutor(1) as pool, place.client() as own:
        waiting = pool.submit(own.wait_visible, repository, accepted.seq, 60.0)
        report(client, "one", repository, accepted.seq)
        assert waiting.result(timeout=20).is_visible


def test_a_mirror_that_was_waited_for_in_vain_is_not_waited_for_until_it_has_caught_up(
    client: LogAgentClient,
) -> None:
    repository = create_repository(client)
    serving_mirrors(client, repository, "one", "slow")
    first = push(client, repository, "first")
    report(client, "one", repository, first.seq)
    assert client.wait_visible(repository, first.seq, 0.05).late == ("slow",)
    second = push(client, repository, "second")
    report(client, "one", repository, second.seq)
    visibility = client.wait_visible(repository, second.seq, 250)  # a real wait would end the test
    assert (visibility.is_visible, visibility.late) == (False, ("slow",))
    report(client, "slow", repository, second.seq)
    third = push(client, repository, "third")
    report(client, "one", repository, third.seq)
    with LogAgentClient(client._path) as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.wait_visible, repository, third.seq, 60.0)
        wait_until(lambda: not waiting.done(), what="it is waited for again")
        report(client, "slow", repository, third.seq)
        assert waiting.result(timeout=20).is_visible


# ---- what a mishap shows in the status


def test_the_status_names_what_is_unsettled(client: LogAgentClient, log: FaultyLog) -> None:
    repository = create_repository(client)
    log.plan(Kind.PUSH, Mishap.LATE)
    log.plan(Kind.VOID, *[Mishap.LOST] * 100)
    with pytest.raises(InDoubtError):
        client.append(push_request(client.last(repository), repository, "x"), 0.1)
    assert client.status()["unsettled"] == [repository]
    log.land()
    wait_until(lambda: client.status()["unsettled"] == [], what="it settles")
