"""The spine: pushed over SSH, replicated through the log, cloned over HTTPS from a mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clients import CURRENT_HG, OLDER_HG
from tests.support.fleet import FRONTS, Fleet
from tests.support.invariants import check_repository, get, get_json
from tests.support.repositories import WorkingCopy

CLIENTS = [pytest.param(CURRENT_HG, id="hg-7.2"), pytest.param(OLDER_HG, id="hg-6.9")]

pytestmark = pytest.mark.every_topology
EACH_FRONT = pytest.mark.parametrize("one_mirror", [*FRONTS, "hosts"], indirect=True)


@EACH_FRONT
@pytest.mark.parametrize("executable", CLIENTS)
def test_what_was_pushed_over_ssh_is_cloned_back_over_https(
    one_mirror: Fleet, repository: str, tmp_path: Path, executable: Path
) -> None:
    hg = one_mirror.client(executable)
    one_mirror.create(repository)
    work = WorkingCopy.init(hg, tmp_path / "work")
    node = work.commit("first")

    pushed = work.push(one_mirror.ssh_url(repository)).ok()

    assert "remote: recorded push in pushlog" in pushed.text
    assert f"{one_mirror.https_url(repository)}/rev/{node}" in pushed.text
    assert f"visible on all {len(one_mirror.mirror_names())} mirrors" in pushed.text
    clone = WorkingCopy.clone(hg, one_mirror.https_url(repository), tmp_path / "clone")
    assert clone.node("tip") == node
    [push] = check_repository(one_mirror, repository)
    assert push["user"] == one_mirror.endpoints["account"]


def test_a_push_of_several_changesets_names_each_of_them(
    one_mirror: Fleet, repository: str, tmp_path: Path
) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    nodes = [work.commit(f"change {number}") for number in range(3)]

    pushed = work.push(one_mirror.ssh_url(repository)).ok()

    assert "View your changes here:" in pushed.text
    assert all(f"/rev/{node}" in pushed.text for node in nodes)


def test_a_push_of_many_changesets_names_the_pushlog_instead(
    one_mirror: Fleet, repository: str, tmp_path: Path
) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    nodes = [work.commit(f"change {number}") for number in range(11)]

    pushed = work.push(one_mirror.ssh_url(repository)).ok()

    assert "View the pushlog for these changes here:" in pushed.text
    assert f"{one_mirror.https_url(repository)}/pushloghtml?changeset={nodes[-1]}" in pushed.text


def test_what_was_pushed_can_be_pulled_from_every_mirror_at_once(
    two_mirrors: Fleet, repository: str, tmp_path: Path
) -> None:
    two_mirrors.create(repository)
    work = WorkingCopy.init(two_mirrors.client(), tmp_path / "work")
    node = work.commit("first")

    pushed = work.push(two_mirrors.ssh_url(repository)).ok()

    assert f"visible on all {len(two_mirrors.mirror_names())} mirrors" in pushed.text
    for name in two_mirrors.mirror_names():
        seen = work.hg.run("identify", "-r", node, two_mirrors.mirror_url(name, repository)).ok()
        assert seen.out.split()[0] == node[:12]
    WorkingCopy.clone(work.hg, two_mirrors.https_url(repository), tmp_path / "through-proxy")


@EACH_FRONT
def test_pushing_the_same_again_says_that_there_is_nothing(
    one_mirror: Fleet, repository: str, tmp_path: Path
) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    work.commit("first")
    work.push(one_mirror.ssh_url(repository)).ok()

    again = work.push(one_mirror.ssh_url(repository))

    assert again.status == 1
    assert "no changes found" in again.text
    assert len(check_repository(one_mirror, repository)) == 1


@EACH_FRONT
def test_the_primary_answers_reads_over_ssh(one_mirror: Fleet, repository: str, tmp_path: Path) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    node = work.commit("first")
    work.push(one_mirror.ssh_url(repository)).ok()

    clone = WorkingCopy.clone(work.hg, one_mirror.ssh_url(repository), tmp_path / "clone")

    assert clone.node("tip") == node


def test_a_push_over_https_is_refused(one_mirror: Fleet, repository: str, tmp_path: Path) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    work.commit("first")

    pushed = work.push(one_mirror.https_url(repository))

    assert pushed.status == 255
    assert "Traceback" not in pushed.text
    assert check_repository(one_mirror, repository) == []


def test_the_plain_port_sends_everything_to_https(one_mirror: Fleet, repository: str, tmp_path: Path) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    node = work.commit("first")
    work.push(one_mirror.ssh_url(repository)).ok()

    plain = f"{one_mirror.endpoints['http'].rstrip('/')}/{repository}"
    WorkingCopy.clone(work.hg, plain, tmp_path / "clone")
    value = get_json(one_mirror, f"{plain}/json-pushes?version=2&startID=0")

    assert value["pushes"]["1"]["changesets"] == [node]


def test_an_unknown_repository_is_a_404(one_mirror: Fleet) -> None:
    status, _ = get(one_mirror, one_mirror.https_url("tests/not-there"))
    assert status == 404


def test_a_renamed_repository_answers_under_its_new_name_only(
    one_mirror: Fleet, repository: str, tmp_path: Path
) -> None:
    one_mirror.create(repository)
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    work.commit("first")
    work.push(one_mirror.ssh_url(repository)).ok()

    one_mirror.cli("repo", "rename", repository, f"{repository}-renamed").ok()

    assert get(one_mirror, one_mirror.https_url(repository))[0] == 404
    WorkingCopy.clone(work.hg, one_mirror.https_url(f"{repository}-renamed"), tmp_path / "clone")
    work.commit("second")
    work.push(one_mirror.ssh_url(f"{repository}-renamed")).ok()
    assert len(check_repository(one_mirror, f"{repository}-renamed")) == 2


def test_a_deleted_name_can_be_used_again_with_unrelated_history(
    one_mirror: Fleet, repository: str, tmp_path: Path
) -> None:
    one_mirror.create(repository)
    first = WorkingCopy.init(one_mirror.client(), tmp_path / "first")
    first.commit("first")
    first.push(one_mirror.ssh_url(repository)).ok()
    one_mirror.cli("repo", "delete", repository, "--yes").ok()
    assert get(one_mirror, one_mirror.https_url(repository))[0] == 404

    one_mirror.create(repository)
    other = WorkingCopy.init(one_mirror.client(), tmp_path / "other")
    node = other.commit("unrelated", file="other.txt")
    other.push(one_mirror.ssh_url(repository)).ok()

    [push] = check_repository(one_mirror, repository)
    assert push["changesets"] == [node]
