"""Clone bundles on one machine: made on a mirror, offered with the log, fetched by real clients."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import CURRENT_HG, OLDER_HG
from tests.support.fleet import Fleet
from tests.support.repositories import WorkingCopy
from tests.support.waiting import wait_until

_numbers = itertools.count(1)
LONG = 300.0  # what makes bundles gives way to everything else on the machine
CONFIG = """
[bundles]
wanted = "on"
interval = "1s"
growth = 1000
check_interval = "1s"
grace = "1s"

[[locations]]
attribute = "datacenter=here"
networks = ["127.0.0.0/8", "::1/128"]
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
        deadline_seconds=LONG,
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
    path = fleet.create(f"bundled/{next(_numbers)}")
    tmp_path.mkdir(exist_ok=True)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    await_bundles(fleet, path)
    return path, work


def test_a_repository_chooses_its_bundles_and_does_without_them_at_once(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)

    fleet.cli("repo", "set", path, "--bundles", "off").ok()
    wait_until(
        lambda: not manifest_of(fleet, path), what="no bundles", deadline_seconds=LONG, explain=fleet.explain
    )
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


def test_over_ssh_too_a_client_is_told_of_what_lies_where_it_is(fleet: Fleet, tmp_path: Path) -> None:
    path, _ = bundled(fleet, tmp_path)
    first = fleet.client().run("clone", "-U", fleet.ssh_url(path), tmp_path / "first").ok()
    assert ".zstd.hg" in first.text
    [made] = [entry["url"] for entry in entries_of(fleet, path) if entry["type"] == "gzip-v1"]
    url = f"{made}?here"
    fleet.cli("bundles", "add", path, url, "BUNDLESPEC=gzip-v1", "datacenter=here").ok()

    cloned = fleet.client().run("clone", "-U", fleet.ssh_url(path), tmp_path / "second").ok()

    assert f"applying clone bundle from {url}" in cloned.text


def entries_of(fleet: Fleet, path: str) -> list[dict[str, Any]]:
    [row] = fleet.cli_json("bundles", "list", path)
    entries: list[dict[str, Any]] = row["entries"]
    return entries


def object_of(fleet: Fleet, entry: dict[str, Any]) -> Path:
    """Return the file in the fleet's own store."""
    return fleet.directory / "bundles" / entry["url"].partition("/-/bundle-files/own/")[2]


def log_of(fleet: Fleet, process: str) -> list[dict[str, Any]]:
    lines = (fleet.directory / "logs" / f"{process}.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_list_says_what_there_is_and_why(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)

    [row] = fleet.cli_json("bundles", "list", path)

    assert (row["path"], row["step"], row["is_disabled"]) == (path, "keep", False)
    assert row["made"]["changesets"] == 1
    assert len(row["entries"]) == 5
    table = fleet.cli("bundles", "list").ok().out
    assert path in table
    assert "changesets behind" in table
    metrics = fleet.fetch(f"{fleet.endpoints['admin']}/-/metrics").body.decode()
    value_by_name = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(value_by_name["hgfleet_bundles_repositories"]) >= 1
    assert float(value_by_name["hgfleet_bundler_failing"]) == 0


def test_bundles_are_disabled_and_restored_at_once(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)

    fleet.cli("bundles", "disable", path).ok()
    wait_until(
        lambda: not manifest_of(fleet, path), what="no offer", deadline_seconds=LONG, explain=fleet.explain
    )
    assert fleet.cli("bundles", "disable", path).status == 1
    fleet.cli("bundles", "restore", path).ok()

    assert len(await_bundles(fleet, path)) == 5


def test_the_set_before_is_brought_back_and_the_one_before_that_removed(fleet: Fleet, tmp_path: Path) -> None:
    path, work = bundled(fleet, tmp_path)
    first = entries_of(fleet, path)
    for number in range(2):
        work.commit(f"more {number}")
        work.push(fleet.ssh_url(path)).ok()
        assert "5 bundles" in fleet.cli("bundles", "make", path).ok().out

    wait_until(
        lambda: not any(object_of(fleet, entry).exists() for entry in first),
        what="the first bundles are removed",
        deadline_seconds=LONG,
        explain=fleet.explain,
    )
    newest = entries_of(fleet, path)
    fleet.cli("bundles", "restore", path).ok()

    restored = entries_of(fleet, path)
    assert {entry["url"] for entry in restored}.isdisjoint(entry["url"] for entry in first + newest)
    assert fleet.cli("bundles", "check", path).ok()


def test_a_bundle_that_is_gone_is_dropped_at_once_and_made_again(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)
    victim = entries_of(fleet, path)[0]
    object_of(fleet, victim).unlink()

    wait_until(
        lambda: object_of(fleet, victim).exists() and len(manifest_of(fleet, path)) == 5,
        what="the bundle is there again",
        deadline_seconds=LONG,
        explain=fleet.explain,
    )

    gone = [line for line in log_of(fleet, "bundler") if line["event"] == "bundles.gone"]
    assert victim["url"] in {line["url"] for line in gone}


def test_a_damaged_bundle_is_found_by_a_check_and_made_again(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)
    victim = entries_of(fleet, path)[0]
    file = object_of(fleet, victim)
    whole = file.read_bytes()
    file.write_bytes(b"x" * len(whole))

    checked = fleet.cli("bundles", "check", path, "--json")

    assert checked.status == 1
    found = {row["url"]: (row["condition"], row["is_dropped"]) for row in json.loads(checked.out)}
    assert found.pop(victim["url"]) == ("gone", True)
    assert set(found.values()) == {("well", False)}
    wait_until(
        lambda: len(manifest_of(fleet, path)) == 5 and file.read_bytes() == whole,
        what="the bundle is whole again",
        deadline_seconds=LONG,
        explain=fleet.explain,
    )


def test_what_people_add_is_fetched_first_and_survives_the_next_making(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)
    other = entries_of(fleet, bundled(fleet, tmp_path / "other")[0])[0]
    spec = f"BUNDLESPEC={other['spec']}"

    assert fleet.cli("bundles", "add", path, f"{other['url']}x", spec).status == 1
    fleet.cli("bundles", "add", path, other["url"], spec, "datacenter=ams").ok()
    fleet.cli("bundles", "make", path).ok()

    [added] = [entry for entry in entries_of(fleet, path) if entry["url"] == other["url"]]
    assert (added["store"], added["sha256"]) == ("", other["sha256"])
    assert added["attributes"] == {"datacenter": "ams"}
    fleet.cli("bundles", "remove", path, other["url"]).ok()
    assert other["url"] not in {entry["url"] for entry in entries_of(fleet, path)}


def test_downloads_go_on_where_they_broke_off_and_lead_nowhere_else(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = bundled(fleet, tmp_path)
    entry = entries_of(fleet, path)[0]
    whole = fleet.fetch(entry["url"])

    part = fleet.fetch(entry["url"], headers={"Range": "bytes=10-19"})
    rest = fleet.fetch(entry["url"], headers={"Range": "bytes=-7"})
    past = fleet.fetch(entry["url"], headers={"Range": f"bytes={len(whole.body)}-"})

    assert hashlib.sha256(whole.body).hexdigest() == entry["sha256"]
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.body)}"
    assert (rest.status, rest.body) == (206, whole.body[-7:])
    assert past.status == 416
    head = fleet.fetch(entry["url"], method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole.body)))
    for name in ("own/../../hgfleet.toml", "own/.incoming/x", "own//etc/passwd", "other/x", "own/", "own"):
        assert fleet.fetch(fleet.https_url(f"-/bundle-files/{name}")).status == 404
