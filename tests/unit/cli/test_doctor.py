"""What the doctor makes of what it sees; the asking itself is in tests/behaviour/test_hosts.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hgfleet.cli.doctor_command import CHECKS, Check, checks_for, examine
from hgfleet.cli.doctor_fleet import find_stuck, judge_mirrors
from hgfleet.cli.doctor_hosts import judge_certificate, judge_host
from hgfleet.cli.doctor_machine import check_disk, check_locations, judge_room
from hgfleet.cli.doctor_parts import check_blobs, check_directory, judge_agent
from hgfleet.cli.fleet import Fleet, Place
from hgfleet.cli.host_states import Told, clock_difference
from hgfleet.config.load import parse_config
from hgfleet.errors import TransientError
from hgfleet.model.finding import Finding
from hgfleet.model.ids import HostName
from hgfleet.replication.mirror_list import MirrorRow

GIB = 1024**3
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEALTHY: dict[str, Any] = {
    "catalogue": {"owner": "hg1", "newest_epoch": 3, "parked": ""},
    "positions": [{"partition": 0, "parked": {}}],
    "lost": [],
    "last_error": "",
}


def make_fleet(directory: Path, tables: dict[str, Any] | None = None, host: str | None = None) -> Fleet:
    path = directory / "hgfleet.toml"
    return Fleet(Place(path, directory, host), parse_config(tables or {}, path))


def bad(findings: Iterator[Finding] | list[Finding]) -> list[Finding]:
    wrong = [finding for finding in findings if not finding.is_good]
    assert all(finding.remedy for finding in wrong), "whatever is wrong says what mends it"
    return wrong


def row(host: str, stage: str = "serving", release: str = "1", waits_for: str = "") -> MirrorRow:
    return MirrorRow(HostName(host), stage, stage == "serving", 0, (), release, waits_for)


def test_a_check_that_fails_is_a_finding_and_stops_no_other(tmp_path: Path) -> None:
    def failing(_fleet: Fleet) -> Iterator[Finding]:
        raise TransientError("x.y", "it does not answer", hint="plug it in")

    def good(_fleet: Fleet) -> Iterator[Finding]:
        yield Finding("b", True, "fine")

    checks: dict[str, Check] = {"a": failing, "b": good}

    assert list(examine(make_fleet(tmp_path), checks)) == [
        Finding("a", False, "it does not answer", "plug it in"),
        Finding("b", True, "fine"),
    ]


def test_a_host_without_copies_is_not_asked_for_a_log_agent(tmp_path: Path) -> None:
    hosts = [
        {"name": "hg1", "address": "127.0.0.11", "roles": ["primary", "coordinator"]},
        {"name": "hg3", "address": "127.0.0.13", "roles": ["mirror"]},
        {"name": "lb", "address": "127.0.0.10", "roles": ["balancer"]},
    ]
    tables = {"site": {"url": "https://hg.example.org"}, "hosts": hosts}

    assert checks_for(make_fleet(tmp_path, tables, "hg3")) == CHECKS
    assert not {"log", "mirrors"} & checks_for(make_fleet(tmp_path, tables, "lb")).keys()


def test_a_log_agent_that_has_read_a_led_log_is_well() -> None:
    assert not bad(judge_agent(HEALTHY))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"catalogue": {"owner": "", "newest_epoch": 0, "parked": ""}}, "no host has ever led"),
        ({"last_error": "no broker answers"}, "no broker answers"),
        ({"positions": [{"partition": 0, "parked": {"r1": "fork"}}]}, "r1 cannot be read on: fork"),
        (
            {"catalogue": {"owner": "a", "newest_epoch": 1, "parked": "gap"}},
            "the catalogue cannot be read on",
        ),
        ({"lost": [{"path": "a"}]}, "has lost 1 repositories"),
    ],
)
def test_what_a_log_agent_complains_of_is_told(change: dict[str, Any], text: str) -> None:
    [finding] = bad(judge_agent(HEALTHY | change))

    assert text in finding.text


def test_hosts_are_compared_by_release_configuration_and_clock() -> None:
    same = {"release": "1", "configuration_digest": "d", "problems": []}

    assert not bad(judge_host(Told("hg2", same), "1", "d"))
    assert "runs release 1, this host 2" in bad(judge_host(Told("hg2", same), "2", "d"))[0].text
    assert "another configuration" in bad(judge_host(Told("hg2", same), "1", "e"))[0].text
    assert "a clock -3.5 s" in bad(judge_host(Told("hg2", same, -3.5), "1", "d"))[0].text
    assert (
        "does not answer: refused" in bad(judge_host(Told("hg2", None, reason="refused"), "1", "d"))[0].text
    )
    assert bad(judge_host(Told("hg2", same | {"problems": ["no log"]}), "1", "d"))[0].text == "hg2: no log"


def test_a_clock_is_off_only_by_what_lies_outside_of_the_time_that_we_waited() -> None:
    assert clock_difference(100.5, 100.0, 101.0) == 0.0
    assert clock_difference(98.0, 100.0, 101.0) == -2.0
    assert clock_difference(104.0, 100.0, 101.0) == 3.0


def test_mirrors_out_of_service_and_too_few_of_them_are_told() -> None:
    joining = row("hg4", "joining", waits_for="the coordinator to count it")

    assert not bad(judge_mirrors([row("hg3")], 1))
    found = bad(judge_mirrors([row("hg3"), joining], 2))
    assert [finding.text for finding in found] == [
        "hg4 is joining",
        "1 in service, membership.floor is 2: nothing new is exposed",
    ]
    assert "waits for the coordinator" in found[0].remedy


def test_two_releases_at_once_are_an_unfinished_update() -> None:
    assert "they run 1, 2" in bad(judge_mirrors([row("hg3"), row("hg4", release="2")], 1))[0].text


def test_what_moves_between_two_looks_is_not_stuck() -> None:
    assert find_stuck({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 1}) == {"a": 1}


def test_a_certificate_that_ends_within_a_fortnight_is_not_well() -> None:
    assert judge_certificate("hg3", NOW + timedelta(days=15), NOW).is_good
    soon = judge_certificate("hg3", NOW + timedelta(days=13), NOW)
    assert (soon.is_good, soon.text) == (False, "hg3's ends on 2026-01-14")


def test_a_disk_is_low_by_size_by_share_or_by_inodes() -> None:
    assert judge_room("x", 20 * GIB, 100 * GIB, 9).is_good
    assert not judge_room("x", GIB // 2, 2 * GIB, 9).is_good
    assert not judge_room("x", 4 * GIB, 100 * GIB, 9).is_good
    assert judge_room("x", 20 * GIB, 100 * GIB, 0).text == "no inode is free for x"


def test_directories_that_are_not_there_yet_are_judged_by_where_they_will_lie(tmp_path: Path) -> None:
    subjects = {finding.text.partition(" for ")[2] for finding in check_disk(make_fleet(tmp_path))}

    assert {text.partition(" in ")[0] for text in subjects} == {
        "repositories",
        "log files",
        "the log",
        "blobs",
    }


def test_a_providers_file_has_to_be_whole_and_recent(tmp_path: Path) -> None:
    ranges = tmp_path / "cloud.json"
    location = {"attribute": "gceregion", "provider": "google", "file": str(ranges)}
    fleet = make_fleet(tmp_path, {"locations": [location]})

    [absent] = check_locations(fleet)
    assert not absent.is_good
    assert absent.remedy
    ranges.write_text("{")
    assert bad(check_locations(fleet))
    ranges.write_text('{"prefixes": [{"ipv4Prefix": "34.1.208.0/20", "scope": "us-west1"}]}')
    [good] = check_locations(fleet)
    assert good.is_good
    assert "1 networks, 0 days old" in good.text
    os.utime(ranges, (0, 0))
    [old] = check_locations(fleet)
    assert not old.is_good
    assert "timer" in old.remedy


def test_the_embedded_parts_are_tried(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    (tmp_path / "blobs").mkdir()

    assert not bad(list(check_blobs(fleet)))
    assert bad(examine(fleet, {"directory": check_directory}))
    (tmp_path / "directory.toml").write_text("")
    assert not bad(list(check_directory(fleet)))
