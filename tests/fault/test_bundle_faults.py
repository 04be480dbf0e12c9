"""Clone bundles while things break: killed at each step, stores away or full, a repository deleted meanwhile.

Whatever happens, what is offered can be fetched and is what it says; and when it is over, all is made.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.fleet import Fleet
from tests.support.full_disk import SmallDisk, small_disk
from tests.support.repositories import WorkingCopy

STEPS = (
    "bundles-in-making",
    "bundles-after-making",
    "bundles-before-upload",
    "bundles-after-upload",
    "bundles-after-read-back",
    "bundles-before-append",
    "bundles-after-append",
)
TYPES = 2
LONG = 300.0  # what makes bundles gives way to everything else on the machine
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    """Where the second store lies."""
    with small_disk("8m") as disk:
        yield disk


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, disk: SmallDisk) -> Iterator[Fleet]:
    """A fleet of one mirror with two stores."""
    config = f"""
[bundles]
wanted = "on"
types = ["gzip-v1", "stream-v2"]
interval = "500ms"
check_interval = "500ms"
growth = 0
grace = "1s"
[bundles.stores.one]
path = "one"
attributes = ["datacenter=one"]
[bundles.stores.two]
path = "{disk.path}/two"
attributes = ["datacenter=two"]
"""
    running = Fleet(tmp_path_factory.mktemp("bundle-faults") / "fleet", config=config)
    try:
        yield running.start()
    finally:
        running.close()


def begin(fleet: Fleet, tmp_path: Path) -> tuple[str, WorkingCopy]:
    """Push a new repository."""
    path = fleet.create(f"faulty/{next(_numbers)}")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    return path, work


def offered(fleet: Fleet, path: str) -> list[str]:
    """Return the URLs that a client is told, each fetched and compared with what the manifest says."""
    lines = fleet.fetch(fleet.https_url(f"{path}?cmd=clonebundles")).body.decode().splitlines()
    for line in lines:
        url, *words = line.split(" ")
        digest = dict(word.split("=", 1) for word in words)["DIGEST"]
        reply = fleet.fetch(url)
        assert reply.status == 200, line
        assert unquote(digest) == f"sha256:{hashlib.sha256(reply.body).hexdigest()}", line
    return [line.split(" ")[0] for line in lines]


def of_store(urls: list[str], name: str) -> int:
    return sum(f"/-/bundle-files/{name}/" in url for url in urls)


def await_all(fleet: Fleet, path: str, *, one: int = TYPES, two: int = TYPES) -> None:
    def is_there() -> bool:
        urls = offered(fleet, path)
        return (of_store(urls, "one"), of_store(urls, "two")) == (one, two)

    fleet.wait(is_there, f"{one} and {two} bundles of {path}", LONG)


def log_of(fleet: Fleet) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (fleet.directory / "logs" / "bundler.log").read_text().splitlines()]


def scratch_of(fleet: Fleet) -> list[Path]:
    return list((fleet.directory / "hosts" / "mirror1" / "spool" / "bundles").glob("*"))


def test_killed_at_each_step_what_is_offered_stays_right_and_all_is_made_in_the_end(
    fleet: Fleet, tmp_path: Path
) -> None:
    for step in STEPS:
        fleet.set_fault(step, "kill")
    path, work = begin(fleet, tmp_path)

    for step in STEPS:
        fleet.wait(lambda step=step: not fleet.is_armed(step), f"{step} kills", LONG)  # type: ignore[misc]
        offered(fleet, path)
    await_all(fleet, path)

    clone = WorkingCopy.clone(fleet.client(), fleet.https_url(path), tmp_path / "clone")
    assert clone.node("tip") == work.node("tip")
    fleet.wait(lambda: not scratch_of(fleet), "nothing is left behind", LONG)


def test_a_bundler_that_is_killed_while_it_removes_goes_on_removing(fleet: Fleet, tmp_path: Path) -> None:
    path, work = begin(fleet, tmp_path)
    await_all(fleet, path)
    fleet.set_fault("bundles-after-removal", "kill")
    first = {file.name for file in (fleet.directory / "one" / path).iterdir()}

    for number in range(2):
        before = offered(fleet, path)
        work.commit(f"more {number}")
        work.push(fleet.ssh_url(path)).ok()
        fleet.wait(lambda before=before: set(offered(fleet, path)).isdisjoint(before), "new bundles", LONG)  # type: ignore[misc]

    fleet.wait(lambda: not fleet.is_armed("bundles-after-removal"), "killed while it removes", LONG)
    fleet.wait(
        lambda: first.isdisjoint(file.name for file in (fleet.directory / "one" / path).iterdir()),
        "the first bundles are removed",
        LONG,
    )
    await_all(fleet, path)
    assert fleet.cli("bundles", "list", path).ok()


def test_a_store_that_is_away_keeps_what_it_has_and_harms_no_other(
    fleet: Fleet, tmp_path: Path, disk: SmallDisk
) -> None:
    path, work = begin(fleet, tmp_path)
    await_all(fleet, path)
    old = {url for url in offered(fleet, path) if of_store([url], "two")}
    disk.make_read_only()
    try:
        work.commit("while it is away")
        work.push(fleet.ssh_url(path)).ok()
        fleet.wait(
            lambda: (
                len(set(offered(fleet, path)) - old) == TYPES
                and of_store(offered(fleet, path), "one") == TYPES
            ),
            "new bundles at the other store",
            LONG,
        )
        assert {url for url in offered(fleet, path) if of_store([url], "two")} <= old
    finally:
        disk.make_writable()

    fleet.wait(lambda: set(offered(fleet, path)).isdisjoint(old), "the store has the new ones, too", LONG)
    await_all(fleet, path)


def test_a_full_store_takes_nothing_and_harms_no_other(fleet: Fleet, tmp_path: Path, disk: SmallDisk) -> None:
    disk.fill()
    try:
        path, _work = begin(fleet, tmp_path)
        await_all(fleet, path, two=0)
        failed = [line for line in log_of(fleet) if line["event"] == "bundles.store-failed"]
        assert ("two", True) in {(line["store"], "full" in line["reason"]) for line in failed}
    finally:
        disk.free()
    await_all(fleet, path)


def test_a_disk_without_room_for_the_making_leaves_what_is_offered(fleet: Fleet, tmp_path: Path) -> None:
    path, work = begin(fleet, tmp_path)
    await_all(fleet, path)
    before = offered(fleet, path)
    fleet.set_fault("bundles-in-making", "enospc")
    work.commit("more")
    work.push(fleet.ssh_url(path)).ok()

    fleet.wait(lambda: not fleet.is_armed("bundles-in-making"), "the disk is full", LONG)
    assert offered(fleet, path)
    fleet.wait(lambda: set(offered(fleet, path)).isdisjoint(before), "new bundles", LONG)
    fleet.wait(lambda: not scratch_of(fleet), "nothing is left behind", LONG)


def test_a_repository_that_is_deleted_while_its_bundles_are_made_gets_none(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.set_fault("bundles-before-append", "stall")
    path, _work = begin(fleet, tmp_path)
    fleet.wait_stalled("bundles-before-append")

    fleet.cli("repo", "delete", path, "--yes").ok()
    fleet.clear_fault("bundles-before-append")

    other, _work = begin(fleet, tmp_path / "other")
    await_all(fleet, other)
    fleet.wait(lambda: not (fleet.directory / "one" / path).exists(), "what was uploaded is removed", LONG)
    assert fleet.fetch(fleet.https_url(f"{path}?cmd=clonebundles")).status == 404
    fleet.wait(lambda: not scratch_of(fleet), "nothing is left behind", LONG)


def test_stores_that_have_lost_everything_get_it_again(fleet: Fleet, tmp_path: Path) -> None:
    path, _work = begin(fleet, tmp_path)
    await_all(fleet, path)
    shutil.rmtree(fleet.directory / "one" / path)

    def is_mended() -> bool:
        return (fleet.directory / "one" / path).exists() and of_store(offered(fleet, path), "one") == TYPES

    fleet.wait(is_mended, "the bundles are there again", LONG)
