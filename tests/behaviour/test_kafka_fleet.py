"""`hgfleet up` with its log in Kafka: made, pushed to, cloned from, and looked at with Kafka's own eyes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hgfleet.adapters.kafka_progress import KafkaProgress
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.model.ids import HostName, Partition
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository
from tests.support.kafka import KafkaCluster
from tests.support.kafka_topics import fleet_config, new_prefix
from tests.support.repositories import WorkingCopy

# A mirror that is held still stays counted.
LONG_LEASE = """
[membership]
lease = "10m"
self_stale = "5m"
"""


@pytest.fixture(scope="module")
def prefix() -> str:
    return new_prefix()


@pytest.fixture(scope="module")
def fleet(
    kafka_broker: KafkaCluster, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    config = fleet_config(kafka_broker, prefix, LONG_LEASE)
    fleet = Fleet(tmp_path_factory.mktemp("kafka-fleet") / "fleet", mirrors=2, config=config)
    fleet.cli("log", "create").ok()
    try:
        yield fleet.start()
    finally:
        fleet.close()


def test_without_its_topics_a_fleet_says_which_command_makes_them(
    kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    fleet = Fleet(tmp_path / "fleet", config=fleet_config(kafka_broker, new_prefix()))
    process = fleet.spawn()
    try:
        fleet.wait(lambda: "hgfleet log create" in fleet.explain(), "the command is named", 60)
    finally:
        process.terminate()
        process.wait(30)


def test_making_the_topics_again_makes_nothing_and_a_difference_is_said_with_its_mending(
    kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    prefix = new_prefix()
    fleet = Fleet(tmp_path / "fleet", config=fleet_config(kafka_broker, prefix))
    made = fleet.cli_json("log", "create")
    assert sorted(made["created"]) == sorted(
        f"{prefix}{name}" for name in ("catalogue", "pushdata", "hgfleet-state", "pushdataaggregator")
    )
    assert fleet.cli_json("log", "create") == {"created": [], "differences": []}

    wrong = fleet_config(kafka_broker, prefix).replace("min_isr = 1", 'min_isr = 1\nretention = "30d"')
    (fleet.directory / "hgfleet.toml").write_text(wrong)
    told = fleet.cli("log", "create")
    assert told.status == 78
    assert f"{prefix}pushdataaggregator: retention.ms is 604800000, should be 2592000000" in told.out
    assert f"--entity-name {prefix}pushdataaggregator --add-config retention.ms=2592000000" in told.out


def test_doctor_compares_the_topics_and_names_what_mends_them(
    fleet: Fleet, kafka_broker: KafkaCluster, prefix: str, tmp_path: Path
) -> None:
    def topics(asked: Fleet) -> list[tuple[bool, str]]:
        findings = json.loads(asked.cli("doctor", "--json").out)["findings"]
        return [(f["is_good"], f["remedy"]) for f in findings if f["subject"] == "topics"]

    assert topics(fleet) == [(True, "")]
    wrong = fleet_config(kafka_broker, prefix).replace("min_isr = 1", 'min_isr = 1\nretention = "30d"')
    [(is_good, remedy)] = topics(Fleet(tmp_path / "fleet", config=wrong))
    assert not is_good
    assert "retention.ms=2592000000" in remedy


def test_what_was_pushed_is_cloned_back_and_every_host_commits_how_far_it_is(
    fleet: Fleet, kafka_broker: KafkaCluster, prefix: str, tmp_path: Path
) -> None:
    paths = [fleet.create(f"tests/kafka{number}") for number in range(2)]
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    node = work.commit("first")
    for path in paths:
        assert "visible on all 2 mirrors" in work.push(fleet.ssh_url(path)).ok().text
    clone = WorkingCopy.clone(work.hg, fleet.https_url(paths[0]), tmp_path / "clone")
    assert clone.node("tip") == node
    for path in paths:
        check_repository(fleet, path)

    def is_level() -> bool:
        rows = fleet.cli_json("log", "lag")["partitions"]
        return len(rows) == 16 and not any(row["lag"] for row in rows)

    fleet.wait(is_level, "both mirrors have committed all eight partitions to their ends")
    board = KafkaProgress(KafkaSettings(kafka_broker.client_settings, topic_prefix=prefix))
    committed = board.committed()
    board.close()
    assert set(committed) == {HostName("mirror1"), HostName("mirror2")}
    assert set(committed[HostName("mirror1")]) == {Partition(number) for number in range(8)}
    assert {position.epoch for position in committed[HostName("mirror1")].values()} == {1}


def test_a_mirror_that_stands_still_shows_as_lag_and_no_commit_is_ahead_of_it(
    fleet: Fleet, tmp_path: Path
) -> None:
    path = fleet.create("tests/lagging")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    partition = fleet.cli_json("repo", "show", path)["partition"]

    def lag_of(host: str) -> int:
        rows = fleet.cli_json("log", "lag")["partitions"]
        return next(row["lag"] for row in rows if (row["host"], row["partition"]) == (host, partition))

    fleet.wait(lambda: lag_of("mirror2") == 0, "mirror2 is level")
    with fleet.paused("applier", "mirror2"):
        for number in range(3):
            work.commit(f"late {number}")
            work.push(fleet.ssh_url(path)).ok()
        fleet.wait(lambda: lag_of("mirror2") == 3, "mirror2 is shown to lack three")
        fleet.wait(lambda: lag_of("mirror1") == 0, "mirror1 is level")
        assert fleet.cli_json("log", "lag")["repositories"][0]["path"] == path
    fleet.wait(lambda: lag_of("mirror2") == 0, "mirror2 is level again")


def test_the_agent_starts_again_and_its_epoch_is_read_in_every_partition(fleet: Fleet) -> None:
    before = fleet.cli_json("log", "lag")["partitions"]
    fleet.kill_child("log-agent")

    def is_new() -> bool:
        rows = fleet.cli("log", "lag", "--json")
        return rows.status == 0 and '"epoch": 2' in rows.out

    fleet.wait(is_new, "the new epoch is committed")
    fleet.wait(
        lambda: {row["epoch"] for row in fleet.cli_json("log", "lag")["partitions"]} == {2},
        "every partition has it",
    )
    after = fleet.cli_json("log", "lag")["partitions"]
    assert all(new["offset"] > old["offset"] for old, new in zip(before, after, strict=True))
