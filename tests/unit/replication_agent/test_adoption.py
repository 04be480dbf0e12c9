"""The log agent gives a lost repository back: its path, and all of what a copy has, in one append."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from hgfleet.adapters.agent_answers import AdoptRequest
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import NO_DIGEST, Digest, Partition, RepoId, RepoPath, Seq
from hgfleet.model.message import Kind, Message, decode_message, payload_ref
from hgfleet.model.settings import RepoSettings
from tests.support.agents import (
    AgentPlace,
    create_repository,
    push,
    push_request,
    running_agent,
    short_directory,
)
from tests.support.faulty_log import FaultyLog, Mishap

STATE = b"all of it"
DIGEST = Digest("d" * 64)


@pytest.fixture
def place() -> Iterator[AgentPlace]:
    with short_directory() as directory:
        yield AgentPlace(directory)


@contextmanager
def agent(place: AgentPlace) -> Iterator[tuple[LogAgentClient, FaultyLog]]:
    log = place.open_log()
    faulty = FaultyLog(log)
    try:
        with running_agent(place.options(faulty, log.log_id)), place.client() as client:
            yield client, faulty
    finally:
        log.close()


def lose_log(place: AgentPlace) -> RepoId:
    """Let an agent write three messages, then remove its log."""
    with agent(place) as (client, _):
        repository = create_repository(client)
        push(client, repository, "one")
        push(client, repository, "two")
    for path in place.directory.glob("log.sqlite*"):
        path.unlink()
    return repository


def request(repository: RepoId, seq: int) -> AdoptRequest:
    """Adopt a copy that stands at `seq`, of a log that has nothing."""
    body = {"adopts": {"seq": seq, "digest": DIGEST}, "settings": RepoSettings().to_json()}
    return AdoptRequest(
        repository=repository,
        path=RepoPath("team/app"),
        partition=Partition(2),
        base_seq=Seq(0),
        base_digest=NO_DIGEST,
        body=body,
        identity="host:primary",
        trace="adoption",
        payload=payload_ref(STATE),
        inline=STATE,
    )


def messages(client: LogAgentClient, repository: RepoId) -> list[Message]:
    return [decode_message(item.wire) for item in client.read(repository, 0).messages]


def kinds(client: LogAgentClient, repository: RepoId) -> list[Kind]:
    return [message.envelope.kind for message in messages(client, repository)]


@pytest.mark.parametrize("mishap", [None, Mishap.UNANSWERED, Mishap.LOST, Mishap.TWICE])
def test_a_lost_repository_is_bound_again_and_has_its_state_above_every_seq_it_had(
    place: AgentPlace, mishap: Mishap | None
) -> None:
    repository = lose_log(place)
    with agent(place) as (client, log):
        if mishap is not None:
            log.plan(Kind.RESET, mishap)
        accepted = client.adopt(request(repository, 3))

        assert accepted.seq == 4
        assert kinds(client, repository) == [Kind.CREATED, Kind.VOID, Kind.VOID, Kind.RESET]
        assert messages(client, repository)[-1].payload == STATE
        assert client.resolve("team/app").repository == repository
        assert client.status()["lost"] == []
        base = client.last(repository)
        assert client.append(push_request(base, repository, "goes on"), 5).seq == 5
    with agent(place) as (client, _):
        assert client.last(repository).seq == 5, "the next life deletes nothing of it"


def test_a_log_that_was_cut_is_filled_from_where_it_ends(place: AgentPlace) -> None:
    with agent(place) as (client, _):
        repository = create_repository(client)
        push(client, repository, "kept")
        last = client.last(repository)
        wanted = replace(request(repository, 6), base_seq=last.seq, base_digest=last.digest)
        assert client.adopt(wanted).seq == 7
        assert kinds(client, repository)[2:] == [Kind.VOID] * 4 + [Kind.RESET]


def test_a_log_that_went_on_since_the_report_is_left_alone(place: AgentPlace) -> None:
    with agent(place) as (client, _):
        repository = create_repository(client)
        last = client.last(repository)
        push(client, repository, "meanwhile")
        wanted = replace(request(repository, 6), base_seq=last.seq, base_digest=last.digest)
        with pytest.raises(TransientError) as refused:
            client.adopt(wanted)
        assert refused.value.code == "push.raced"
        assert kinds(client, repository) == [Kind.CREATED, Kind.PUSH]


def test_a_deleted_repository_and_one_whose_name_is_taken_are_not_brought_back(place: AgentPlace) -> None:
    repository = lose_log(place)
    with agent(place) as (client, _):
        client.delete("team/app", identity="alice", trace="given up")
        other = create_repository(client)
        with pytest.raises(RejectedError) as refused:
            client.adopt(request(repository, 3))
        assert refused.value.code == "repo.exists"
        assert client.last(repository).seq == 0
        client.delete("team/app", identity="alice", trace="d")
        with pytest.raises(RejectedError) as refused:
            client.adopt(request(other, 3))
        assert refused.value.code == "repo.deleted"
