"""Lives of agents: becoming the primary's, dying at any step, zombies, logs that are not what they were."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from hgfleet.adapters.agent_answers import LastMessage
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import ConfigError, FleetError, InDoubtError, RejectedError, TransientError
from hgfleet.model.ids import CATALOGUE, HostName, Offset, RepoId
from hgfleet.model.message import Kind, Topic, decode_message
from tests.support.agents import (
    AgentPlace,
    ThreadedAgent,
    agent_process,
    create_repository,
    push,
    push_request,
    running_agent,
    short_directory,
    wait_for_agent,
)
from tests.support.faulty_log import FaultyLog, Mishap
from tests.support.waiting import wait_until


@pytest.fixture
def place() -> Iterator[AgentPlace]:
    with short_directory() as directory:
        yield AgentPlace(directory)


@contextmanager
def agent(place: AgentPlace, *, serving: bool = True, **changes: object) -> Iterator[LogAgentClient]:
    """An agent with a log client of its own, as another process would have one."""
    log = place.open_log()
    options = place.options(log, log.log_id, **changes)
    try:
        with running_agent(options, serving=serving), place.client() as client:
            yield client
    finally:
        log.close()


def texts(client: LogAgentClient, repository: RepoId) -> list[str]:
    messages = [decode_message(item.wire) for item in client.read(repository, 0).messages]
    return [message.payload.decode() for message in messages if message.envelope.kind is Kind.PUSH]


# ---- becoming


def test_every_start_on_the_primary_opens_a_new_epoch(place: AgentPlace) -> None:
    epochs = []
    for _ in range(3):
        with agent(place) as client:
            hello = client.hello()
            assert hello.is_serving
            epochs.append(hello.epoch)
    assert epochs == [1, 2, 3]


def test_the_epoch_stands_in_the_catalogue_and_every_partition(place: AgentPlace) -> None:
    with agent(place) as client:
        status = client.status()
        assert {item["epoch"] for item in status["positions"]} == {1}
        assert {item["serving_epoch"] for item in status["positions"]} == {1}
        assert status["catalogue"]["newest_epoch"] == 1
        assert status["catalogue"]["owner"] == "primary"


def test_a_host_that_may_not_lead_stays_standby_even_on_an_empty_log(place: AgentPlace) -> None:
    with agent(place, serving=False, may_lead=False) as client:
        assert (client.hello().epoch, client.hello().is_serving) == (0, False)
        with pytest.raises(TransientError) as caught:
            create_repository(client)
        assert caught.value.code == "log.not-serving"


def test_a_standby_leaves_an_empty_log_to_the_primary_but_leads_again_once_it_was_promoted(
    place: AgentPlace,
) -> None:
    standby: dict[str, Any] = {"host": HostName("standby"), "may_found": False}
    with agent(place, serving=False, **standby) as client:
        assert (client.hello().epoch, client.hello().is_serving) == (0, False)
    with agent(place):
        pass
    with agent(place, **standby, takes_over=True) as promoted:
        assert promoted.hello().epoch == 2
    with agent(place, **standby) as again:
        assert again.hello().epoch == 3


def test_another_host_stays_standby_until_it_is_told_to_take_over(place: AgentPlace) -> None:
    other = AgentPlace(place.directory, "other")
    with agent(place) as primary:
        repository = create_repository(primary)
        push(primary, repository, "one")
        with agent(other, serving=False, host=HostName("standby")) as standby:
            wait_until(lambda: standby.last(repository).seq == 2, what="the standby reads along")
            assert not standby.hello().is_serving
            with pytest.raises(TransientError):
                push(standby, repository, "wrong host")
        with agent(other, host=HostName("standby"), takes_over=True) as promoted:
            assert promoted.hello().epoch == 2
            push(promoted, repository, "two")
            wait_until(lambda: primary.hello().epoch == 0, what="the old primary notices")
            with pytest.raises(TransientError) as caught:
                push(primary, repository, "three")
            assert caught.value.code == "log.not-serving"
            wait_until(lambda: texts(primary, repository) == ["one", "two"], what="it reads along")
    with agent(place, serving=False) as former:
        assert former.hello().epoch == 0  # a start does not take it back


def test_of_two_lives_on_one_log_only_the_newer_ones_messages_count(place: AgentPlace) -> None:
    """The first life goes on as a zombie that does not see what the second writes."""
    zombie_log = place.open_log()
    blind = BlindLog(zombie_log)
    second_place = AgentPlace(place.directory, "two")
    with running_agent(place.options(blind, zombie_log.log_id)), place.client() as zombie:
        repository = create_repository(zombie)
        push(zombie, repository, "before")
        blind.is_blind = True
        with agent(second_place) as second:
            base = second.last(repository)
            with ThreadPoolExecutor(1) as pool:
                attempt = pool.submit(try_push, zombie, repository, zombie_base(base), "zombie")
                push(second, repository, "second")
                wait_until(lambda: blind.appended > 0, what="the zombie wrote its push")
                blind.is_blind = False
                assert attempt.result() in {"epoch.lost", "push.raced"}
            assert texts(second, repository) == ["before", "second"]
            wait_until(
                lambda: texts(zombie, repository) == ["before", "second"], what="the zombie sees it, too"
            )
            assert zombie.hello().epoch == 0
    zombie_log.close()


def zombie_base(base: LastMessage) -> LastMessage:
    return replace(base, serving_epoch=base.serving_epoch - 1)  # type: ignore[arg-type]


def try_push(client: LogAgentClient, repository: RepoId, base: LastMessage, text: str) -> str:
    try:
        client.append(push_request(base, repository, text), 5)
    except FleetError as error:
        return error.code
    return "accepted"


class BlindLog(FaultyLog):
    """A log whose reader sees nothing new while it is blind: a paused or partitioned host."""

    def __init__(self, log: object) -> None:
        super().__init__(log)  # type: ignore[arg-type]
        self.is_blind = False
        self.appended = 0

    def append(self, records):  # type: ignore[no-untyped-def]
        if self.is_blind:
            self.appended += 1
        return super().append(records)

    def read(self, topic, partition, offset, max_bytes):  # type: ignore[no-untyped-def]
        return [] if self.is_blind else super().read(topic, partition, offset, max_bytes)


def test_an_unanswered_bid_is_won_once(place: AgentPlace) -> None:
    for mishap in (Mishap.UNANSWERED, Mishap.LOST, Mishap.TWICE, Mishap.REFUSED):
        log = place.open_log()
        faulty = FaultyLog(log)
        faulty.plan(Kind.EPOCH, mishap)
        with running_agent(place.options(faulty, log.log_id)), place.client() as client:
            repository = create_repository(client, f"app-{mishap}")
            push(client, repository, "one")
        log.close()
    with agent(place) as client:
        assert client.hello().epoch == 5
        kinds = [decode_message(item.wire).envelope.kind for item in client.catalogue(0).messages]
        assert kinds.count(Kind.EPOCH) == 5


def test_epochs_that_the_log_does_not_confirm_are_written_again(place: AgentPlace) -> None:
    log = place.open_log()
    faulty = FaultyLog(log)
    faulty.plan(Kind.EPOCH, *[Mishap.UNANSWERED, Mishap.LOST, Mishap.REFUSED, Mishap.LATE])
    with running_agent(place.options(faulty, log.log_id)), place.client() as client:
        repository = create_repository(client)
        faulty.land()
        push(client, repository, "one")
        assert faulty.planned == 0
    log.close()


def test_no_second_agent_runs_on_one_hosts_index(place: AgentPlace) -> None:
    with agent(place):
        log = place.open_log()
        second = ThreadedAgent(place.options(log, log.log_id))
        second.start()
        second.stop()
        assert isinstance(second.error, ConfigError)
        assert second.error.code == "log.agent-running"
        log.close()


# ---- dying


@pytest.mark.parametrize("point", ["agent-before-append", "agent-after-append"])
def test_an_append_that_the_agent_died_over_is_settled_by_its_next_life(
    place: AgentPlace, point: str
) -> None:
    with agent_process(place) as process, place.client() as client:
        repository = create_repository(client)
        base = client.last(repository)
        process.arm(point)
        with ThreadPoolExecutor(1) as pool, place.client() as own:
            attempt = pool.submit(try_push, own, repository, base, "one")
            assert process.wait_for_end() == -signal.SIGKILL
            process.start()
            outcome = attempt.result()
        if point == "agent-after-append":
            assert (outcome, texts(client, repository)) == ("accepted", ["one"])
        else:
            assert (outcome, texts(client, repository)) == ("log.agent-died", [])
        push(client, repository, "two")
        assert texts(client, repository)[-1] == "two"


def test_an_append_whose_agent_does_not_come_back_is_in_doubt(place: AgentPlace) -> None:
    with agent_process(place) as process, place.client() as client:
        repository = create_repository(client)
        base = client.last(repository)
        process.arm("agent-after-append")
        with pytest.raises(InDoubtError) as caught:
            client.append(push_request(base, repository, "one"), 0.2)
        assert caught.value.code == "log.in-doubt"
        process.restart()
        assert texts(client, repository) == ["one"]


def test_an_agent_that_was_killed_at_any_moment_loses_nothing_it_accepted(place: AgentPlace) -> None:
    with agent_process(place) as process, place.client() as client:
        repository = create_repository(client)
        accepted: list[str] = []
        for round_ in range(3):
            wanted, life = len(accepted) + 10, client.hello().life
            with ThreadPoolExecutor(1) as pool:
                pushing = pool.submit(push_many, place, repository, f"round {round_}", life, accepted)
                wait_until(partial(has_length, accepted, wanted), what="some were accepted")
                process.restart()
                pushing.result()
        there = texts(client, repository)
        assert [text for text in there if text in set(accepted)] == accepted
        assert len(set(there)) == len(there)


def has_length(items: list[str], length: int) -> bool:
    return len(items) >= length


def push_many(place: AgentPlace, repository: RepoId, name: str, life: str, accepted: list[str]) -> None:
    """Push until that life of the agent has been replaced; note what was accepted, in order."""
    with place.client() as client:
        for number in range(10_000):
            try:
                push(client, repository, f"{name} {number}", deadline_seconds=10)
                accepted.append(f"{name} {number}")
            except TransientError:
                pass
            if number % 10 == 0 and is_replaced(client, life):
                return


def is_replaced(client: LogAgentClient, life: str) -> bool:
    try:
        hello = client.hello()
    except TransientError:
        return False
    return hello.life != life and hello.is_serving


def test_a_stop_signal_ends_it_cleanly_and_removes_the_socket(place: AgentPlace) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with agent_process(place) as process, place.client() as client:
            repository = create_repository(client, f"app{number}")
            push(client, repository, "one")
            assert process.popen is not None
            process.popen.send_signal(number)
            assert process.wait_for_end() == 0
            assert not place.socket.exists()
            with pytest.raises(TransientError) as caught:
                client.last(repository)
            assert caught.value.code == "local.unreachable"


def test_a_stop_lets_an_append_under_way_be_answered(place: AgentPlace) -> None:
    with agent_process(place) as process, place.client() as client:
        repository = create_repository(client)
        base = client.last(repository)
        process.arm("agent-after-append", "stall")
        with ThreadPoolExecutor(1) as pool:
            attempt = pool.submit(try_push, client, repository, base, "one")
            wait_until((place.faults / "agent-after-append.reached").exists, what="the append is under way")
            assert process.popen is not None
            process.popen.send_signal(signal.SIGTERM)
            wait_until(lambda: not place.socket.exists(), what="it accepts nothing more")
            process.disarm("agent-after-append")
            assert attempt.result() == "accepted"
        assert process.wait_for_end() == 0


# ---- logs that are not the one that was


def test_the_index_spares_reading_the_log_again(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
        for number in range(20):
            push(client, repository, f"{number}")
        before = client.last(repository)
        all_before = client.read(repository, 0)
    log = CountingLog(place.open_log())
    with running_agent(place.options(log, log.log_id)), place.client() as client:
        assert client.last(repository).digest == before.digest
        assert log.records_read[Topic.PUSHDATA] <= 3 + 1 + 3  # tails to compare, what came since, epochs
        assert client.read(repository, 0).messages == all_before.messages
    log.close()


class CountingLog(FaultyLog):
    """A log that counts what is read of it."""

    def __init__(self, log: object) -> None:
        super().__init__(log)  # type: ignore[arg-type]
        self.log_id = log.log_id  # type: ignore[attr-defined]
        self.records_read = dict.fromkeys(Topic, 0)

    def read(self, topic, partition, offset, max_bytes):  # type: ignore[no-untyped-def]
        records = super().read(topic, partition, offset, max_bytes)
        self.records_read[topic] += len(records)
        return records


def test_a_lost_index_is_made_again_from_the_log(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
        push(client, repository, "one")
        before = client.last(repository), client.read(repository, 0).messages
    place.index.unlink()
    with agent(place) as client:
        after = client.last(repository)
        assert (
            replace(after, serving_epoch=before[0].serving_epoch),
            client.read(repository, 0).messages,
        ) == before


def test_a_damaged_index_is_made_again_from_the_log(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
        push(client, repository, "one")
    place.index.write_bytes(b"garbage" * 1000)
    with agent(place) as client:
        assert texts(client, repository) == ["one"]


def test_a_log_made_anew_is_read_from_its_start_and_copies_are_ahead_of_it(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
        push(client, repository, "one")
        base = client.last(repository)
    for path in place.directory.glob("log.sqlite*"):
        path.unlink()
    with agent(place) as client:
        last = client.last(repository)
        assert (last.seq, last.partition) == (0, None)
        with pytest.raises(RejectedError):
            client.append(push_request(base, repository, "two"), 5)
        assert client.paths()[0] == ()


def test_a_lost_repository_is_not_taken_for_one_that_never_was(place: AgentPlace) -> None:
    with agent(place) as client:
        create_repository(client, "kept")
        create_repository(client, "gone")
        client.delete("gone", identity="alice", trace="d")
        create_repository(client, "old")
        client.rename("old", "new", identity="alice", trace="r")
    for path in place.directory.glob("log.sqlite*"):
        path.unlink()
    for _ in range(2):  # the second life finds an index of the new log
        with agent(place) as client:
            assert [lost["path"] for lost in client.status()["lost"]] == ["kept", "new"]
            for path in ("kept", "new"):
                with pytest.raises(RejectedError) as caught:
                    client.resolve(path)
                assert caught.value.code == "log.behind"
                with pytest.raises(RejectedError) as caught:
                    create_repository(client, path)
                assert caught.value.code == "log.behind"
            for path in ("gone", "old"):
                with pytest.raises(RejectedError) as caught:
                    client.resolve(path)
                assert caught.value.code == "repo.unknown"
    with agent(place) as client:
        client.delete("kept", identity="alice", trace="given up")
        repository = create_repository(client, "kept")
        push(client, repository, "begins anew")
    with agent(place) as client:
        assert client.resolve("kept").repository == repository
        assert [lost["path"] for lost in client.status()["lost"]] == ["new"]


def test_a_log_restored_from_a_backup_is_read_again_and_copies_are_ahead_of_it(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
        push(client, repository, "one")
    backup = place.directory / "backup"
    shutil.copy(place.log, backup)
    with agent(place) as client:
        push(client, repository, "two")
        base = client.last(repository)
    for path in place.directory.glob("log.sqlite*"):
        path.unlink()
    shutil.copy(backup, place.log)
    with agent(place) as client:
        last = client.last(repository)
        assert client.resolve("team/app").repository == repository
        assert client.status()["lost"] == []
        assert last.seq == base.seq - 1
        ahead = replace(base, serving_epoch=last.serving_epoch)
        with pytest.raises(RejectedError) as caught:
            client.append(push_request(ahead, repository, "three"), 5)
        assert caught.value.code == "log.behind"
        assert texts(client, repository) == ["one"]


def test_a_backup_that_grew_past_the_index_is_noticed_by_its_tail(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
    backup, old_index = place.directory / "backup", place.directory / "old-index"
    shutil.copy(place.log, backup)
    with agent(place) as client:
        push(client, repository, "lost")
    shutil.copy(place.index, old_index)
    for path in [*place.directory.glob("log.sqlite*"), *place.directory.glob("one.index*")]:
        path.unlink()
    shutil.copy(backup, place.log)
    with agent(place) as client:
        for number in range(5):
            push(client, repository, f"new {number}")
    for path in place.directory.glob("one.index*"):
        path.unlink()
    shutil.copy(old_index, place.index)
    with agent(place) as client:
        assert texts(client, repository) == [f"new {number}" for number in range(5)]


@pytest.mark.parametrize("way", ["removed", "replaced", "cut"])
def test_an_agent_whose_log_is_gone_ends_so_that_its_next_life_sees(place: AgentPlace, way: str) -> None:
    log = place.open_log()
    with running_agent(place.options(log, log.log_id)) as running, place.client() as client:
        repository = create_repository(client)
        push(client, repository, "one")
        if way == "cut":
            os.truncate(place.log, 4096)
        else:
            for path in place.directory.glob("log.sqlite*"):
                path.unlink()
            if way == "replaced":
                place.open_log().close()
        wait_until(lambda: not running.is_running, what="the agent ends")
        assert isinstance(running.error, TransientError)
        assert running.error.code == "log.replaced"
    log.close()
    if way == "cut":
        with pytest.raises(ConfigError) as caught:
            place.open_log()
        assert caught.value.code == "log.damaged"


def test_a_log_that_begins_behind_what_was_read_is_refused(place: AgentPlace) -> None:
    with agent(place) as client:
        repository = create_repository(client)
        for number in range(5):
            push(client, repository, f"{number}")
        last = client.last(repository)
    log = place.open_log()
    assert last.partition is not None
    log.drop_before(Topic.PUSHDATA, last.partition, Offset(last.position.offset - 1))
    with running_agent(place.options(log, log.log_id)), place.client() as client:
        with pytest.raises(RejectedError) as caught:
            client.read(repository, 0)
        assert caught.value.code == "log.overrun"
        assert len(client.read(repository, last.seq - 1).messages) == 1
        push(client, repository, "goes on")
    place.index.unlink()
    second = ThreadedAgent(place.options(log, log.log_id))
    second.start()
    second.stop()
    assert isinstance(second.error, ConfigError)
    assert second.error.code == "log.overrun"
    log.close()


def test_what_another_agent_appends_is_heard_of_soon(place: AgentPlace) -> None:
    other = AgentPlace(place.directory, "other")
    with agent(place) as primary, agent(other, serving=False, may_lead=False) as standby:
        repository = create_repository(primary)
        with standby.follow() as stream:
            stream.next_event(10)
            accepted = push(primary, repository, "one")
            wait_until(lambda: standby.last(repository).digest == accepted.digest, what="it is read")
        assert standby.last(CATALOGUE).digest == primary.last(CATALOGUE).digest


def test_an_agent_starts_while_the_log_grows(place: AgentPlace) -> None:
    other = AgentPlace(place.directory, "other")
    with agent(place) as primary:
        repository = create_repository(primary)
        with ThreadPoolExecutor(1) as pool:
            pushing = pool.submit(lambda: [push(primary, repository, f"{n}") for n in range(100)])
            with agent(other, serving=False, may_lead=False) as standby:
                accepted = pushing.result()
                wait_until(lambda: standby.last(repository).digest == accepted[-1].digest, what="level")
                wait_for_agent(standby, serving=False)
