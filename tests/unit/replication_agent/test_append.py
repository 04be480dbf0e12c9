"""What the agent answers to an append, from a log that behaves and from one that does not."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import InDoubtError, RejectedError, TransientError
from hgfleet.model import features
from hgfleet.model.fleet_records import Heartbeat, Member, Stage
from hgfleet.model.ids import CATALOGUE, Digest, Epoch, HostName, Offset, RepoId, Seq
from hgfleet.model.message import Kind, PayloadRef, Topic, decode_message, encode_message, make_message
from hgfleet.ports.replication_log import NewRecord
from tests.support.agents import (
    AgentPlace,
    create_repository,
    push,
    push_request,
    running_agent,
    short_directory,
)
from tests.support.faulty_log import FaultyLog, Mishap
from tests.support.full_disk import small_disk
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
def client(place: AgentPlace, log: FaultyLog) -> Iterator[LogAgentClient]:
    options = place.options(log, "log-id", append_deadline_seconds=1.0)
    with running_agent(options), place.client() as client:
        yield client


@pytest.fixture
def repository(client: LogAgentClient) -> RepoId:
    return create_repository(client)


def payloads(client: LogAgentClient, repository: RepoId) -> list[str]:
    messages = [decode_message(item.wire) for item in client.read(repository, 0).messages]
    return [message.payload.decode() for message in messages if message.envelope.kind is Kind.PUSH]


def kinds(client: LogAgentClient, repository: RepoId) -> list[str]:
    return [decode_message(item.wire).envelope.kind.value for item in client.read(repository, 0).messages]


# ---- a log that behaves


def test_an_accepted_append_is_the_repositorys_last_message(
    client: LogAgentClient, repository: RepoId
) -> None:
    accepted = push(client, repository, "one")
    last = client.last(repository)
    assert (accepted.seq, accepted.digest, accepted.position) == (last.seq, last.digest, last.position)
    message = decode_message(client.read(repository, 1).messages[0].wire)
    assert message.digest == accepted.digest
    assert (message.envelope.identity, message.envelope.trace) == ("alice", "push-one")
    assert message.envelope.at == accepted.at


def test_an_append_on_an_old_base_is_refused_and_changes_nothing(
    client: LogAgentClient, repository: RepoId
) -> None:
    base = client.last(repository)
    push(client, repository, "one")
    with pytest.raises(TransientError) as caught:
        client.append(push_request(base, repository, "two"), 5)
    assert caught.value.code == "push.raced"
    assert payloads(client, repository) == ["one"]


def test_a_copy_ahead_of_its_log_hears_that_and_nothing_is_written(
    client: LogAgentClient, repository: RepoId
) -> None:
    base = client.last(repository)
    for ahead in (replace(base, seq=Seq(7)), replace(base, digest=Digest("f" * 64))):
        with pytest.raises(RejectedError) as caught:
            client.append(push_request(ahead, repository, "two"), 5)
        assert caught.value.code == "log.behind"
    assert client.last(repository) == base


def test_an_append_under_another_epoch_is_refused(client: LogAgentClient, repository: RepoId) -> None:
    base = client.last(repository)
    for epoch in (0, base.serving_epoch + 1):
        with pytest.raises(TransientError) as caught:
            client.append(push_request(replace(base, serving_epoch=Epoch(epoch)), repository, "x"), 5)
        assert caught.value.code == "log.not-serving"


def test_sessions_append_only_what_sessions_may(client: LogAgentClient, repository: RepoId) -> None:
    base = client.last(repository)
    for kind in (Kind.DELETED, Kind.VOID, Kind.CREATED, Kind.EPOCH, Kind.BIND, Kind.SNAPSHOT):
        with pytest.raises(RejectedError) as caught:
            client.append(push_request(base, repository, "x", kind=kind), 5)
        assert caught.value.code == "append.kind"


def test_a_payload_must_be_what_the_request_says(client: LogAgentClient, repository: RepoId) -> None:
    request = push_request(client.last(repository), repository, "x")
    wrong = [
        replace(request, inline=b"y"),
        replace(request, payload=replace(request.payload, size_bytes=2)),
        replace(request, payload=replace(request.payload, is_inline=False)),
        replace(request, inline=b"", payload=PayloadRef(5, Digest(""), False)),
    ]
    for bad in wrong:
        with pytest.raises(RejectedError):
            client.append(bad, 5)
    assert payloads(client, repository) == []


def test_a_payload_that_is_too_large_for_the_log_is_refused(
    client: LogAgentClient, repository: RepoId
) -> None:
    with pytest.raises(RejectedError) as caught:
        push(client, repository, "x" * 300_000)
    assert caught.value.code == "append.too-large"


def test_a_blob_must_be_stored_before_a_message_names_it(
    client: LogAgentClient, repository: RepoId, place: AgentPlace
) -> None:
    data = b"large" * 100_000
    spool = place.directory / "spool"
    spool.write_bytes(data)
    digest = Digest(hashlib.sha256(data).hexdigest())
    request = push_request(
        client.last(repository), repository, "", payload=PayloadRef(len(data), digest, False)
    )
    with pytest.raises(RejectedError) as caught:
        client.append(request, 5)
    assert caught.value.code == "blob.missing"
    client.blob_put(spool, digest, len(data))
    assert not spool.exists()
    client.append(request, 5)
    client.blob_get(digest, place.directory / "back")
    assert (place.directory / "back").read_bytes() == data


def test_what_no_reader_could_take_is_refused(client: LogAgentClient, repository: RepoId) -> None:
    base = client.last(repository)
    with pytest.raises(RejectedError):
        client.append(push_request(base, repository, "x", identity="half a \ud800 character"), 5)
    push(client, repository, "fine")


def test_an_unknown_or_deleted_repository_takes_nothing(client: LogAgentClient, repository: RepoId) -> None:
    base = client.last(repository)
    with pytest.raises(RejectedError) as caught:
        client.append(push_request(base, RepoId("e" * 32), "x"), 5)
    assert caught.value.code == "repo.unknown"
    client.delete("team/app", identity="alice", trace="d")
    with pytest.raises(RejectedError) as caught:
        push(client, repository, "x")
    assert caught.value.code == "repo.unknown"


def test_of_many_appends_on_one_base_exactly_one_is_accepted(
    client: LogAgentClient, repository: RepoId, place: AgentPlace
) -> None:
    base = client.last(repository)

    def attempt(number: int) -> str:
        with place.client() as own:
            try:
                own.append(push_request(base, repository, f"text {number}"), 5)
            except TransientError as error:
                return error.code
            return "accepted"

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(attempt, range(20)))
    assert sorted(set(outcomes)) == ["accepted", "push.raced"]
    assert outcomes.count("accepted") == 1
    assert len(payloads(client, repository)) == 1


def test_many_clients_share_commits(client: LogAgentClient, place: AgentPlace, log: FaultyLog) -> None:
    repositories = [create_repository(client, f"app{number}") for number in range(8)]
    log.batch_sizes.clear()

    def work(repository: RepoId) -> None:
        with place.client() as own:
            for number in range(25):
                push(own, repository, f"{number}")

    threads = [threading.Thread(target=work, args=(repository,)) for repository in repositories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(log.batch_sizes) == 200
    assert len(log.batch_sizes) < 150
    assert max(log.batch_sizes) > 1
    for repository in repositories:
        assert payloads(client, repository) == [f"{number}" for number in range(25)]


# ---- a log that does not


def test_a_refusal_of_the_log_changes_nothing_and_the_next_append_is_taken(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.plan(Kind.PUSH, Mishap.REFUSED)
    with pytest.raises(TransientError) as caught:
        push(client, repository, "one")
    assert caught.value.code == "log.unreachable"
    assert not client.last(repository).is_unsettled
    push(client, repository, "two")
    assert payloads(client, repository) == ["two"]


def test_an_append_that_was_taken_without_an_answer_is_accepted(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.plan(Kind.PUSH, Mishap.UNANSWERED)
    push(client, repository, "one")
    assert payloads(client, repository) == ["one"]
    assert "void" not in kinds(client, repository)


def test_an_append_that_never_comes_is_settled_by_a_void_as_nothing(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.plan(Kind.PUSH, Mishap.LOST)
    with pytest.raises(TransientError) as caught:
        push(client, repository, "one")
    assert caught.value.code == "push.raced"
    assert kinds(client, repository) == ["created", "void"]
    push(client, repository, "two")
    assert payloads(client, repository) == ["two"]


def test_a_late_append_that_a_void_overtook_never_counts(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.plan(Kind.PUSH, Mishap.LATE)
    with pytest.raises(TransientError):
        push(client, repository, "one")
    push(client, repository, "two")
    assert log.land() == 1
    push(client, repository, "three")
    assert payloads(client, repository) == ["two", "three"]


def test_while_nothing_is_settled_the_repository_is_closed_and_others_go_on(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    other = create_repository(client, "other")
    log.plan(Kind.PUSH, Mishap.LATE)
    log.plan(Kind.VOID, *[Mishap.LOST] * 100)
    with pytest.raises(InDoubtError):
        push(client, repository, "one")
    last = client.last(repository)
    assert last.is_unsettled
    with pytest.raises(TransientError) as caught:
        client.append(push_request(last, repository, "two"), 0.3)
    assert caught.value.code == "log.unsettled"
    push(client, other, "meanwhile")
    log.land()
    wait_until(lambda: not client.last(repository).is_unsettled, what="the late append settles itself")
    push(client, repository, "three")
    assert payloads(client, repository) == ["one", "three"]
    assert payloads(client, other) == ["meanwhile"]


def test_an_append_in_doubt_that_lands_before_its_deadline_is_accepted(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.plan(Kind.PUSH, Mishap.LATE)
    log.plan(Kind.VOID, *[Mishap.LOST] * 100)
    timer = threading.Timer(0.3, log.land)
    timer.start()
    push(client, repository, "one")
    timer.join()
    assert payloads(client, repository) == ["one"]


def test_a_record_that_the_log_takes_twice_counts_once(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.plan(Kind.PUSH, Mishap.TWICE)
    push(client, repository, "one")
    push(client, repository, "two")
    assert payloads(client, repository) == ["one", "two"]


def test_the_next_append_waits_for_the_one_before(
    client: LogAgentClient, repository: RepoId, log: FaultyLog, place: AgentPlace
) -> None:
    base = client.last(repository)
    log.plan(Kind.PUSH, Mishap.LATE)
    log.plan(Kind.VOID, *[Mishap.LOST] * 100)
    with ThreadPoolExecutor(1) as pool, place.client() as own:
        first = pool.submit(own.append, push_request(base, repository, "one"), 5.0)
        wait_until(lambda: client.last(repository).is_unsettled, what="the first is handed over")
        threading.Timer(0.2, log.land).start()
        with pytest.raises(TransientError) as caught:
            client.append(push_request(base, repository, "two"), 5.0)
        assert caught.value.code == "push.raced"
        assert first.result().seq == 2
    assert payloads(client, repository) == ["one"]


def test_an_unreachable_log_refuses_at_once_and_reading_goes_on(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    push(client, repository, "one")
    log.is_unreachable = True
    with pytest.raises(TransientError) as caught:
        push(client, repository, "two")
    assert caught.value.code == "log.unreachable"
    assert payloads(client, repository) == ["one"]
    log.is_unreachable = False
    push(client, repository, "three")
    assert payloads(client, repository) == ["one", "three"]


def test_a_full_disk_refuses_and_the_agent_goes_on_when_there_is_room() -> None:
    with small_disk("3m") as disk, short_directory() as directory:
        place = AgentPlace(directory)
        disk_place = AgentPlace(disk.path)
        log = disk_place.open_log()
        options = place.options(log, log.log_id, index_path=disk_place.index)
        with running_agent(options), place.client() as client:
            repository = create_repository(client)
            push(client, repository, "before")
            disk.fill()
            accepted = push_until_full(client, repository)
            assert payloads(client, repository) == ["before", *accepted]
            disk.free()
            push(client, repository, "after")
            assert payloads(client, repository) == ["before", *accepted, "after"]
        log.close()
        log = disk_place.open_log()
        options = place.options(log, log.log_id, index_path=disk_place.index)
        with running_agent(options), place.client() as client:
            assert payloads(client, repository) == ["before", *accepted, "after"]
        log.close()


def push_until_full(client: LogAgentClient, repository: RepoId) -> list[str]:
    """Push until that is refused for want of space; return what was accepted."""
    accepted: list[str] = []
    for number in range(200):
        text = f"{number}" * 10_000
        try:
            push(client, repository, text)
        except TransientError as error:
            return accepted if error.code == "log.full" else [f"refused: {error}"]
        accepted.append(text)
    raise AssertionError("the disk never was full")


# ---- damaged messages


def test_garbage_in_a_partition_changes_nothing(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    push(client, repository, "one")
    partition = client.last(repository).partition
    assert partition is not None
    whole = client.read(repository, 1).messages[0].wire
    log.append(
        [
            NewRecord(Topic.PUSHDATA, partition, wire)
            for wire in (b"", b"garbage", whole[:-1], whole[:40], b"\xff" * 1000, whole + b"x")
        ]
    )
    push(client, repository, "two")
    assert payloads(client, repository) == ["one", "two"]


def test_a_message_that_cannot_be_parks_only_its_repository(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    last = client.last(repository)
    others: list[RepoId] = []
    while not any(client.last(name).partition == last.partition for name in others):
        others.append(create_repository(client, f"other{len(others)}"))
    message = decode_message(client.read(repository, 0).messages[0].wire)
    fork = make_message(replace(message.envelope, seq=Seq(2), parent=Digest("f" * 64)))
    assert last.partition is not None
    log.append([NewRecord(Topic.PUSHDATA, last.partition, encode_message(fork))])
    wait_until(lambda: client.last(repository).parked != "", what="the repository is parked")
    with pytest.raises(TransientError) as caught:
        push(client, repository, "x")
    assert caught.value.code == "repo.parked"
    for other in others:
        push(client, other, "fine")


def test_a_repository_that_was_parked_is_parked_after_a_restart(place: AgentPlace) -> None:
    log = place.open_log()
    with running_agent(place.options(log, log.log_id)), place.client() as client:
        repository = create_repository(client)
        message = decode_message(client.read(repository, 0).messages[0].wire)
        gap = make_message(replace(message.envelope, seq=Seq(5)))
        partition = client.last(repository).partition
        assert partition is not None
        log.append([NewRecord(Topic.PUSHDATA, partition, encode_message(gap))])
        wait_until(lambda: client.last(repository).parked != "", what="the repository is parked")
    with running_agent(place.options(log, log.log_id)), place.client() as client:
        assert client.last(repository).parked.startswith("gap")
    place.index.unlink()
    with running_agent(place.options(log, log.log_id)), place.client() as client:
        assert client.last(repository).parked.startswith("gap")
    log.close()


def test_damage_in_the_catalogue_closes_the_catalogue_and_pushes_go_on(
    client: LogAgentClient, repository: RepoId, log: FaultyLog
) -> None:
    log.append([NewRecord(Topic.CATALOGUE, client.last(CATALOGUE).partition, b"garbage")])  # type: ignore[arg-type]
    wait_until(lambda: client.last(CATALOGUE).parked != "", what="the catalogue is parked")
    with pytest.raises(TransientError) as caught:
        create_repository(client, "another")
    assert caught.value.code == "log.not-serving"
    push(client, repository, "one")
    assert client.resolve("team/app").repository == repository


def test_raw_records_are_listed_as_they_lie(client: LogAgentClient, repository: RepoId) -> None:
    push(client, repository, "one")
    partition = client.last(repository).partition
    assert partition is not None
    records = client.records(Topic.PUSHDATA, partition, 0)
    kinds_seen = [decode_message(record.value).envelope.kind for record in records]
    assert kinds_seen[0] is Kind.EPOCH
    assert kinds_seen[-1] is Kind.PUSH
    assert client.records(Topic.PUSHDATA, partition, int(records[-1].next_offset)) == ()
    assert client.records(Topic.CATALOGUE, 0, Offset(0))[0].offset == 0
    with pytest.raises(RejectedError):
        client.records(Topic.PUSHDATA, 99, 0)


# ---- hosts of an older release


def test_a_kind_that_a_host_cannot_read_is_refused_until_that_host_is_upgraded(
    client: LogAgentClient, repository: RepoId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_LEVEL_BY_KIND", {Kind.PUSH: 2})
    old, new = (Heartbeat(Member(HostName("mirror1"), 1), Stage.JOINING, "1", level) for level in (1, 2))

    client.state_publish({old.key: dict(old.value)})
    with pytest.raises(RejectedError, match="not every host can read") as refused:
        push(client, repository, "too new")
    assert (refused.value.code, refused.value.hint) == ("feature.not-everywhere", "upgrade mirror1 first")
    client.state_publish({new.key: dict(new.value)})
    push(client, repository, "readable everywhere")

    assert payloads(client, repository) == ["readable everywhere"]
