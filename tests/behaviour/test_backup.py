"""docs/operate/backup.md, followed to the letter: its commands, on a fleet as people run it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import ROOT
from tests.support.copies import read_copy
from tests.support.fleet import Fleet
from tests.support.repositories import WorkingCopy

PAGE = (ROOT / "docs" / "operate" / "backup.md").read_text()
COMMANDS = re.findall(r"^ +hgfleet (.*)$", PAGE, re.MULTILINE)
RETENTION = '[snapshots]\ncheck_interval = "200ms"\n'


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[list[Fleet]]:
    started: list[Fleet] = []
    yield started
    for fleet in started:
        fleet.close()


def start(fleets: list[Fleet], directory: Path) -> Fleet:
    fleet = Fleet(directory, config=RETENTION).start()
    fleets.append(fleet)
    return fleet


def state(fleet: Fleet, path: str) -> dict[str, object]:
    [copy] = [c for c in fleet.cli_json("repo", "show", path)["copies"] if c["host"] == "primary"]
    return read_copy(Path(copy["path"]))


def test_the_page_s_commands_bring_everything_back_onto_an_empty_log(
    tmp_path: Path, fleets: list[Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [command.split()[1] for command in COMMANDS] == ["snapshot", "restore", "restore"]
    first = start(fleets, tmp_path / "first")
    work = WorkingCopy.init(first.client(), tmp_path / "work")
    for number in range(4):
        work.commit(f"change {number}")
    work.run("bookmark", "feature", "-r", "2").ok()
    first.create("team/app")
    first.create("empty")
    work.run("push", first.ssh_url("team/app"), "-B", "feature").ok()
    before = {name: value for name, value in state(first, "team/app").items() if name != "seq"}
    shown = first.cli_json("repo", "show", "team/app")
    catalogue = tmp_path / "catalogue.json"

    def follow(fleet: Fleet, command: str) -> str:
        words = command.replace("catalogue.json", str(catalogue)).split()
        return fleet.cli(*words).ok().out

    follow(first, COMMANDS[0])
    assert first.stop() == 0
    second = start(fleets, tmp_path / "second")
    shutil.copytree(first.directory / "blobs", second.directory / "blobs", dirs_exist_ok=True)
    report = follow(second, COMMANDS[1])
    assert "team/app" in report
    assert "nothing was restored" in report
    assert second.paths() == set()
    assert follow(second, COMMANDS[2]) == "restored 2 repositories\n"
    assert second.paths() == {"team/app", "empty"}
    after = second.cli_json("repo", "show", "team/app")
    assert after["repository"] == shown["repository"]
    restored = state(second, "team/app")
    assert {name: value for name, value in restored.items() if name != "seq"} == before
    verified = second.cli_json("repo", "verify", "team/app")
    assert len({copy["state_digest"] for copy in verified["copies"] if copy["seq"] == after["seq"]}) == 1
    work.commit("after the disaster")
    second.client().run("push", second.ssh_url("team/app"), cwd=work.directory).ok()
    second.client().run("clone", second.https_url("team/app"), str(tmp_path / "clone")).ok()
    assert "restored 0" in follow(second, COMMANDS[2])
