"""Log agents on a real Kafka: one seq taken once, whoever dies, hangs or takes over meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.errors import FleetError, InDoubtError, TransientError
from hgfleet.model.ids import HostName, RepoId
from hgfleet.model.message import Kind, decode_message
from tests.support.agents import (
    AgentPlace,
    agent_process,
    create_repository,
    push,
    push_request,
    running_agent,
    short_directory,
    wait_for_agent,
)
from tests.support.kafka import KafkaCluster
from tests.support.kafka_topics import make_topics
from tests.support.waiting import wait_until

PARTITIONS = 8


@pytest.fixture
def settings(kafka_broker: KafkaCluster) -> KafkaSettings:
    return make_topics(kafka_broker, PARTITIONS)


@pytest.fixture
def place(settings: KafkaSettings) -> Iterator[AgentPlace]:
    with short_directory() as directory:
        place = AgentPlace(directory)
        place.use_kafka(settings)
        yield place


def texts(client: LogAgentClient, repository: RepoId) -> list[str]:
    messages = [decode_message(message.wire) for message in client.read(repository, 0).messages]
    return [str(m.envelope.body["text"]) for m in messages if m.envelope.kind is Kind.PUSH]


def outcome(client: LogAgentClient, repository: RepoId, text: str) -> str:
    try:
        push(client, repository, text)
    except FleetError as error:
        return error.code
    return "accepted"


def test_of_two_primaries_only_the_newer_ones_messages_count_in_every_partition(place: AgentPlace) -> None:
    other = AgentPlace(place.directory, "other")
    with agent_process(place), place.client() as old:
        repositories = [create_repository(old, f"r{number}") for number in range(12)]
        assert {old.last(repository).partition for repository in repositories} <= set(range(PARTITIONS))
        for repository in repositories:
            push(old, repository, "before")
        log = other.open_any_log()
        options = other.options(log, log.log_id, host=HostName("standby"), takes_over=True)
        try:
            with ThreadPoolExecutor(1) as pool:
                racing = pool.submit(lambda: [outcome(old, each, "old") for each in repositories])
                with running_agent(options), other.client() as new:
                    raced = racing.result()
                    for repository in repositories:
                        push(new, repository, "new")
                    assert new.hello().epoch == 2
                    for repository, told in zip(repositories, raced, strict=True):
                        wanted = ["before", *(["old"] if told == "accepted" else []), "new"]
                        assert texts(new, repository) == wanted, told
                        wait_until(
                            lambda r=repository, w=wanted: texts(old, r) == w,  # type: ignore[misc]
                            what="both read the same",
                        )
                    with pytest.raises(TransientError) as caught:
                        push(old, repositories[0], "too late")
                    assert caught.value.code == "log.not-serving"
        finally:
            log.close()


def test_an_agent_killed_while_kafka_does_not_answer_leaves_nothing_open(
    place: AgentPlace, kafka_broker: KafkaCluster
) -> None:
    [broker] = kafka_broker.brokers
    with agent_process(place) as agent, place.client() as client:
        repository = create_repository(client)
        push(client, repository, "first")
        base = client.last(repository)
        broker.pause()
        try:
            with pytest.raises((InDoubtError, TransientError)):
                client.append(push_request(base, repository, "in doubt"), 2)
            agent.kill()
        finally:
            broker.resume()
            kafka_broker.wait_until_usable()
        agent.start()
        with place.client() as again:
            wait_for_agent(again)
            before = texts(again, repository)
            assert before in (["first"], ["first", "in doubt"])
            push(again, repository, "next")
            assert texts(again, repository) == [*before, "next"]


def test_an_append_that_kafka_did_not_answer_is_settled_when_it_does_without_anybody(
    place: AgentPlace, kafka_broker: KafkaCluster
) -> None:
    [broker] = kafka_broker.brokers
    with agent_process(place), place.client() as client:
        repository = create_repository(client)
        base = client.last(repository)
        broker.pause()
        try:
            with pytest.raises(InDoubtError):
                client.append(push_request(base, repository, "in doubt"), 2)
        finally:
            broker.resume()
            kafka_broker.wait_until_usable()
        wait_until(
            lambda: not client.last(repository).is_unsettled, what="it is settled", deadline_seconds=60
        )
        wait_until(lambda: outcome(client, repository, "next") == "accepted", what="the next one is taken")
        assert texts(client, repository) in (["next"], ["in doubt", "next"])


def test_an_agent_begins_where_its_index_ends_and_anew_where_the_topics_are_others(
    place: AgentPlace, kafka_broker: KafkaCluster
) -> None:
    with agent_process(place) as agent, place.client() as client:
        repository = create_repository(client)
        push(client, repository, "one")
        agent.restart()
        with place.client() as again:
            assert again.hello().epoch == 2
            assert texts(again, repository) == ["one"]
    place.use_kafka(make_topics(kafka_broker, PARTITIONS))
    with agent_process(place), place.client() as client:
        assert client.hello().epoch == 1
        assert client.last(repository).seq == 0
