"""Creating, deleting and renaming through the agent: from every step, a crash included, to a whole result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hgfleet.adapters.agent_answers import CatalogueChange
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError, InDoubtError, RejectedError, TransientError
from hgfleet.model.ids import CATALOGUE, RepoId
from hgfleet.model.message import Kind, decode_message
from hgfleet.model.settings import RepoSettings
from tests.support.agents import (
    AgentPlace,
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
def client(place: AgentPlace, log: FaultyLog) -> Iterator[LogAgentClient]:
    options = place.options(log, "log-id", append_deadline_seconds=1.0)
    with running_agent(options), place.client() as client:
        yield client


def create(client: LogAgentClient, path: str = "team/app") -> CatalogueChange:
    return client.create(path, RepoSettings().to_json(), identity="alice", trace="c")


def delete(client: LogAgentClient, path: str = "team/app") -> CatalogueChange:
    return client.delete(path, identity="alice", trace="d")


def rename(client: LogAgentClient, path: str, new_path: str) -> CatalogueChange:
    return client.rename(path, new_path, identity="alice", trace="r")


def paths(client: LogAgentClient) -> list[str]:
    return [bound.path for bound in client.paths()[0]]


def known(client: LogAgentClient) -> dict[RepoId, bool]:
    """Every repository that was ever created, and whether it is deleted."""
    with client.follow() as stream:
        snapshot = stream.next_event(10)
    return {name: standing.is_deleted for name, standing in snapshot.repositories.items()}  # type: ignore[union-attr]


def wait_for_whole(client: LogAgentClient) -> None:
    """Wait until nothing is created and unbound."""

    def is_whole() -> bool:
        bound = {item.repository for item in client.paths()[0]}
        return {name for name, is_deleted in known(client).items() if not is_deleted} == bound

    wait_until(
        is_whole, what="what is not bound is deleted", explain=lambda: f"{known(client)} {client.paths()}"
    )


# ---- a healthy log


def test_a_created_repository_is_resolved_listed_and_empty(client: LogAgentClient) -> None:
    created = create(client)
    bound = client.resolve("team/app")
    assert (bound.repository, bound.partition) == (created.repository, created.partition)
    assert paths(client) == ["team/app"]
    message = decode_message(client.read(created.repository, 0).messages[0].wire)
    assert (message.envelope.kind, message.envelope.seq) == (Kind.CREATED, 1)
    assert message.envelope.body["settings"] == RepoSettings().to_json()
    assert client.last(CATALOGUE).seq == created.catalogue_seq


def test_a_name_that_exists_is_refused_and_nothing_is_left(client: LogAgentClient) -> None:
    created = create(client)
    with pytest.raises(RejectedError) as caught:
        create(client)
    assert caught.value.code == "repo.exists"
    assert list(known(client)) == [created.repository]


@pytest.mark.parametrize("path", ["", "/", "a//b", "../x", "-x", "a\nb", "a" * 300, "x.hg", "é"])
def test_bad_names_are_refused(client: LogAgentClient, path: str) -> None:
    with pytest.raises(RejectedError) as caught:
        create(client, path)
    assert caught.value.code == "repo.bad-path"
    with pytest.raises(RejectedError):
        client.resolve(path)


def test_bad_settings_are_refused(client: LogAgentClient) -> None:
    for settings in ({}, {"writers": "x"}, RepoSettings().to_json() | {"hooks": "rm"}):
        with pytest.raises(RejectedError) as caught:
            client.create("team/app", settings, identity="alice", trace="c")
        assert caught.value.code == "repo.bad-settings"
    assert known(client) == {}


def test_of_many_that_create_one_name_at_once_exactly_one_succeeds(
    client: LogAgentClient, place: AgentPlace
) -> None:
    def attempt(_: int) -> str:
        with place.client() as own:
            try:
                return create(own).repository
            except RejectedError as error:
                return error.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert outcomes.count("repo.exists") == 7
    assert client.resolve("team/app").repository in outcomes
    wait_for_whole(client)


def test_a_deleted_repository_is_gone_and_its_name_is_free_for_another(client: LogAgentClient) -> None:
    first = create(client)
    push(client, first.repository, "one")
    deleted = delete(client)
    assert deleted.repository == first.repository
    with pytest.raises(RejectedError) as caught:
        client.resolve("team/app")
    assert caught.value.code == "repo.unknown"
    assert client.last(first.repository).is_deleted
    second = create(client)
    assert second.repository != first.repository
    push(client, second.repository, "two")
    assert known(client) == {first.repository: True, second.repository: False}


def test_a_renamed_repository_keeps_its_id_and_messages(client: LogAgentClient) -> None:
    created = create(client)
    push(client, created.repository, "one")
    renamed = rename(client, "team/app", "team/other")
    assert renamed.repository == created.repository
    assert paths(client) == ["team/other"]
    push(client, created.repository, "two")
    assert client.last(created.repository).seq == 3


def test_a_rename_over_another_or_of_nothing_is_refused(client: LogAgentClient) -> None:
    create(client, "a")
    create(client, "b")
    for old, new, code in (
        ("a", "b", "repo.exists"),
        ("x", "y", "repo.unknown"),
        ("a", "../b", "repo.bad-path"),
    ):
        with pytest.raises(RejectedError) as caught:
            rename(client, old, new)
        assert caught.value.code == code
    assert paths(client) == ["a", "b"]


def test_the_catalogues_messages_can_be_read(client: LogAgentClient) -> None:
    create(client, "a")
    rename(client, "a", "b")
    delete(client, "b")
    messages = [decode_message(item.wire) for item in client.catalogue(0).messages]
    assert [message.envelope.kind.value for message in messages] == ["epoch", "bind", "rename", "unbind"]
    assert [message.envelope.seq for message in messages] == [1, 2, 3, 4]
    assert len(client.catalogue(2).messages) == 2


# ---- a log that misbehaves


def test_a_refused_creation_changes_nothing(client: LogAgentClient, log: FaultyLog) -> None:
    log.plan(Kind.CREATED, Mishap.REFUSED)
    with pytest.raises(TransientError):
        create(client)
    assert (known(client), paths(client)) == ({}, [])


def test_a_refused_bind_takes_the_creation_back(client: LogAgentClient, log: FaultyLog) -> None:
    log.plan(Kind.BIND, Mishap.REFUSED)
    with pytest.raises(TransientError):
        create(client)
    assert list(known(client).values()) == [True]
    assert paths(client) == []
    create(client)


@pytest.mark.parametrize("mishap", [Mishap.UNANSWERED, Mishap.LOST, Mishap.TWICE])
@pytest.mark.parametrize("kind", [Kind.CREATED, Kind.BIND])
def test_an_unanswered_creation_becomes_whole_or_nothing(
    client: LogAgentClient, log: FaultyLog, kind: Kind, mishap: Mishap
) -> None:
    log.plan(kind, mishap)
    try:
        create(client)
    except TransientError:
        assert paths(client) == []
    else:
        assert paths(client) == ["team/app"]
    wait_for_whole(client)
    assert log.planned == 0


def test_a_creation_that_is_open_at_the_deadline_goes_on_by_itself(
    client: LogAgentClient, log: FaultyLog
) -> None:
    log.plan(Kind.BIND, *[Mishap.LOST] * 8)
    with pytest.raises(InDoubtError):
        create(client)
    wait_until(lambda: paths(client) == ["team/app"], what="the bind comes through in the end")
    wait_for_whole(client)
    assert len(known(client)) == 1


@pytest.mark.parametrize("mishap", [Mishap.UNANSWERED, Mishap.LOST, Mishap.TWICE, Mishap.REFUSED])
@pytest.mark.parametrize("kind", [Kind.UNBIND, Kind.DELETED])
def test_a_delete_is_done_from_its_unbind_on(
    client: LogAgentClient, log: FaultyLog, kind: Kind, mishap: Mishap
) -> None:
    created = create(client)
    log.plan(kind, mishap)
    try:
        delete(client)
    except TransientError:
        assert (kind, mishap) == (Kind.UNBIND, Mishap.REFUSED)
        assert paths(client) == ["team/app"]
        return
    assert paths(client) == []
    wait_until(lambda: client.last(created.repository).is_deleted, what="the repository is deleted")


def test_a_delete_waits_for_a_push_that_is_not_settled(client: LogAgentClient, log: FaultyLog) -> None:
    created = create(client)
    log.plan(Kind.PUSH, Mishap.LATE)
    log.plan(Kind.VOID, *[Mishap.LOST] * 100)
    with pytest.raises(InDoubtError):
        push(client, created.repository, "late", deadline_seconds=0.2)
    delete(client)
    assert paths(client) == []
    assert not client.last(created.repository).is_deleted
    log.land()
    wait_until(lambda: client.last(created.repository).is_deleted, what="it is deleted behind the push")
    kinds = [decode_message(item.wire).envelope.kind for item in client.read(created.repository, 0).messages]
    assert kinds == [Kind.CREATED, Kind.PUSH, Kind.DELETED]


@pytest.mark.parametrize("mishap", [Mishap.UNANSWERED, Mishap.LOST, Mishap.TWICE])
def test_an_unanswered_rename_happens_once(client: LogAgentClient, log: FaultyLog, mishap: Mishap) -> None:
    create(client, "a")
    log.plan(Kind.RENAME, mishap)
    rename(client, "a", "b")
    assert paths(client) == ["b"]


def test_operations_at_once_keep_their_order_in_the_catalogue(
    client: LogAgentClient, place: AgentPlace
) -> None:
    def work(name: int) -> None:
        with place.client() as own:
            create(own, f"app{name}")
            rename(own, f"app{name}", f"moved{name}")
            if name % 2:
                delete(own, f"moved{name}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths(client) == [f"moved{name}" for name in (0, 2, 4, 6)]
    wait_for_whole(client)


# ---- a killed agent


@pytest.mark.parametrize("point", ["agent-create-unbound", "agent-delete-unbound"])
def test_an_agent_killed_between_the_two_halves_leaves_nothing_half(place: AgentPlace, point: str) -> None:
    with agent_process(place) as process, place.client() as client:
        kept = create_repository(client, "kept")
        if point == "agent-delete-unbound":
            create(client)
        process.arm(point)
        with pytest.raises(FleetError) as caught:
            (delete if point == "agent-delete-unbound" else create)(client)
        assert isinstance(caught.value, InDoubtError)
        process.wait_for_end()
        process.restart()
        assert paths(client) == ["kept"]
        wait_for_whole(client)
        assert sorted(known(client).values()) == [False, True]
        create(client)
        push(client, client.resolve("team/app").repository, "one")
        push(client, kept, "two")
