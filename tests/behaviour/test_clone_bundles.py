"""Clone bundles on one machine: made on a mirror, offered with the log, fetched by real clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import CURRENT_HG, OLDER_HG
from tests.support.fleet import Fleet
from tests.support.repositories import WorkingCopy
from tests.support.waiting import wait_until

CONFIG = """
[bundles]
wanted = "on"
interval = "1s"
growth = 1000
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of one mirror in which every repository is to have bundles."""
    running = Fleet(tmp_path_factory.mktemp("bundles") / "fleet", config=CONFIG)
    try:
        yield running.start()
    finally:
        running.close()


def manifest_of(fleet: Fleet, path: str) -> list[str]:
    """Return the lines that the mirror answers."""
    return fleet.fetch(fleet.https_url(f"{path}?cmd=clonebundles")).body.decode().splitlines()


def await_bundles(fleet: Fleet, path: str) -> list[str]:
    """Return the manifest once there is one."""
    wait_until(
        lambda: manifest_of(fleet, path),
        what=f"bundles of {path}",
        deadline_seconds=30,
        explain=fleet.explain,
    )
    return manifest_of(fleet, path)


@pytest.mark.parametrize(
    "executable", [pytest.param(CURRENT_HG, id="hg-7.2"), pytest.param(OLDER_HG, id="hg-6.9")]
)
def test_a_clone_applies_a_bundle_and_pulls_what_came_after_it(
    fleet: Fleet, tmp_path: Path, executable: Path
) -> None:
    path = fleet.create(f"bundled/{tmp_path.name}")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    for number in range(3):
        work.commit(f"change {number}")
    work.push(fleet.ssh_url(path)).ok()
    lines = await_bundles(fleet, path)
    newest = work.commit("after the bundles")
    work.push(fleet.ssh_url(path)).ok()

    cloned = fleet.client(executable).run("clone", fleet.https_url(path), str(tmp_path / "clone")).ok()

    assert [line.split("BUNDLESPEC=")[1].split(" ")[0].split(";")[0] for line in lines] == [
        "zstd-v2",
        "gzip-v2",
        "gzip-v1",
        "none-packed1",
        "none-v2",
    ]
    assert f"applying clone bundle from {fleet.https_url('-/bundle-files/own/')}{path}/" in cloned.text
    assert "added 1 changesets" in cloned.text
    clone = WorkingCopy(fleet.client(), tmp_path / "clone")
    assert clone.node("tip") == newest
    template = ("log", "-r", "sort(all(), node)", "-T", "{node} {phase} {p1.node} {files}\\n")
    assert clone.run(*template).ok().out == work.run(*template).ok().out


def bundled(fleet: Fleet, tmp_path: Path) -> tuple[str, WorkingCopy]:
    """Return a repository that has bundles, and whence it was pushed."""
    path = fleet.create(f"bundled/{tmp_path.name}")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    await_bundles(fleet, path)
    return path, work


def test_a_repository_chooses_its_bundles_and_does_without_them_at_once(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)

    fleet.cli("repo", "set", path, "--bundles", "off").ok()
    wait_until(lambda: not manifest_of(fleet, path), what="no bundles", explain=fleet.explain)
    fleet.cli("repo", "set", path, "--bundles", "on", "--bundle-types", "gzip-v1").ok()

    [line] = await_bundles(fleet, path)
    assert "gzip-v1" in line
    assert "nothing to change" in fleet.cli("repo", "set", path, "--bundles", "on").ok().text
    assert fleet.cli("repo", "set", path, "--bundle-types", "bzip2").status == 1


def test_a_clone_over_ssh_is_offered_the_same_bundles_by_the_primary(fleet: Fleet, tmp_path: Path) -> None:
    path, work = bundled(fleet, tmp_path)

    cloned = fleet.client().run("clone", fleet.ssh_url(path), str(tmp_path / "clone")).ok()

    assert f"applying clone bundle from {fleet.https_url('-/bundle-files/own/')}{path}/" in cloned.text
    assert WorkingCopy(fleet.client(), tmp_path / "clone").node("tip") == work.node("tip")
    plain = fleet.client().run(
        "clone", "--config", "ui.clonebundles=no", fleet.ssh_url(path), tmp_path / "other"
    )
    assert "this server has pre-generated bundles" in plain.ok().text
