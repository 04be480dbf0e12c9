"""A fleet whose log is on three Kafka brokers, and some of them are lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import finish
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository
from tests.support.kafka import KafkaCluster, running_kafka
from tests.support.kafka_topics import fleet_config, leaders, new_prefix
from tests.support.repositories import WorkingCopy

LONG_LEASE = """
[membership]
lease = "10m"
self_stale = "5m"
"""


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with running_kafka(tmp_path_factory.mktemp("kafka3"), brokers=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def prefix() -> str:
    return new_prefix()


@pytest.fixture(scope="module")
def fleet(kafka: KafkaCluster, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("on-kafka") / "fleet"
    fleet = Fleet(directory, config=fleet_config(kafka, prefix, LONG_LEASE))
    fleet.cli("log", "create").ok()
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def work(fleet: Fleet, kafka: KafkaCluster, request: pytest.FixtureRequest, tmp_path: Path) -> WorkingCopy:
    """A working copy whose first changeset is pushed, while every broker lives."""
    path = f"tests/{request.node.name[:60]}"
    fleet.create(path)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    return work


def path_of(request: pytest.FixtureRequest) -> str:
    return f"tests/{request.node.name[:60]}"


def leader_of(kafka: KafkaCluster, fleet: Fleet, prefix: str, path: str) -> int:
    partition = int(fleet.cli_json("repo", "show", path)["partition"])
    return leaders(kafka, f"{prefix}pushdata")[partition]


def test_with_the_leader_killed_pushes_go_on_and_with_it_back_too(
    fleet: Fleet, kafka: KafkaCluster, prefix: str, work: WorkingCopy, request: pytest.FixtureRequest
) -> None:
    path = path_of(request)
    lost = kafka.brokers[leader_of(kafka, fleet, prefix, path) - 1]
    lost.kill()
    try:
        work.commit("second")
        pushed = work.push(fleet.ssh_url(path)).ok()
        assert "visible on" in pushed.text or "late" in pushed.text
    finally:
        lost.start()
        kafka.wait_until_usable()
    work.commit("third")
    work.push(fleet.ssh_url(path)).ok()
    check_repository(fleet, path)


def test_with_two_of_three_lost_a_push_is_refused_before_its_data_is_sent_and_reading_goes_on(
    fleet: Fleet, kafka: KafkaCluster, work: WorkingCopy, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = path_of(request)
    before = work.node("tip")
    node = work.commit("second")
    for broker in kafka.brokers[1:]:
        broker.kill()
    try:
        refused = work.push(fleet.ssh_url(path), "--debug")
        assert refused.status != 0
        assert "nothing was changed" in refused.text
        assert "not confirmed" not in refused.text
        assert "bundle2-output" not in refused.text  # what Mercurial says when it sends one
        clone = WorkingCopy.clone(work.hg, fleet.https_url(path), tmp_path / "clone")
        assert clone.node("tip") == before
    finally:
        for broker in kafka.brokers[1:]:
            broker.launch()
        kafka.wait_until_usable()
    fleet.wait(lambda: work.push(fleet.ssh_url(path)).status == 0, "the next push is taken", 90)
    assert check_repository(fleet, path)[-1]["changesets"] == [node]


def test_with_two_lost_during_an_append_the_push_is_in_doubt_and_settled_by_itself(
    fleet: Fleet, kafka: KafkaCluster, work: WorkingCopy, request: pytest.FixtureRequest
) -> None:
    path = path_of(request)
    work.commit("second")
    fleet.set_fault("push-before-append", "stall")
    pushing = work.hg.start("push", fleet.ssh_url(path), cwd=work.directory)
    fleet.wait_stalled("push-before-append")
    for broker in kafka.brokers[1:]:
        broker.kill()
    try:
        fleet.clear_fault("push-before-append")
        pushed = finish(pushing)
        assert pushed.status != 0
        assert "not confirmed: it may still appear; push again to find out" in pushed.text
        assert "nothing was changed" not in pushed.text
    finally:
        for broker in kafka.brokers[1:]:
            broker.launch()
        kafka.wait_until_usable()
    # Exit 1 is Mercurial's "no changes found": the log had it.
    fleet.wait(
        lambda: work.push(fleet.ssh_url(path)).status in (0, 1), "the next push needs nobody's help", 90
    )
    work.commit("third")
    fleet.wait(lambda: work.push(fleet.ssh_url(path)).status == 0, "and the one after that", 90)
    check_repository(fleet, path)
