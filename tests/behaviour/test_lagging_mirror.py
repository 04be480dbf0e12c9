"""Two mirrors, one of them paused: nobody sees a push anywhere, then everybody sees it everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import finish
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository, get, get_json, wait_converged
from tests.support.repositories import WorkingCopy

pytestmark = pytest.mark.every_topology
SLOW = "mirror2"
PAGES = ("shortlog", "log", "graph", "bookmarks", "tags", "branches", "file/tip", "summary", "pushloghtml")


def seen_by_readers(fleet: Fleet, mirror: str, path: str, work: WorkingCopy) -> dict[str, Any]:
    """Return what every kind of reader gets from one mirror."""
    url = fleet.mirror_url(mirror, path)
    keys = {
        space: work.hg.run("debugpushkey", url, space).ok().out
        for space in ("bookmarks", "phases", "obsolete")
    }
    return {
        "id": work.hg.run("identify", url).text,
        "heads": get(fleet, f"{url}?cmd=heads")[1],
        "branchmap": get(fleet, f"{url}?cmd=branchmap")[1],
        "keys": keys,
        "pushes": get_json(fleet, f"{url}/json-pushes?version=2&full=1&startID=0"),
        "json": get_json(fleet, f"{url}/json-log"),
        **{f"page {page}": page_text(fleet, f"{url}/{page}") for page in PAGES},
    }


def page_text(fleet: Fleet, url: str) -> list[str]:
    """Return a page's lines without the nonce that every answer makes anew."""
    status, body = get(fleet, url)
    return [str(status), *re.sub(r'nonce="[^"]*"', "", body.decode()).splitlines()]


@pytest.fixture
def pushed(two_mirrors: Fleet, repository: str, tmp_path: Path) -> WorkingCopy:
    """A non-publishing repository with one pushed changeset and two bookmarks, visible everywhere."""
    two_mirrors.create(repository, "--non-publishing")
    work = WorkingCopy.init(two_mirrors.client(), tmp_path / "work")
    work.commit("first")
    work.run("bookmark", "stable").ok()
    work.run("bookmark", "doomed").ok()
    work.commit("second")
    work.push(two_mirrors.ssh_url(repository), "-B", "stable", "-B", "doomed").ok()
    wait_converged(two_mirrors, repository)
    return work


def test_no_reader_sees_a_push_before_every_mirror_can_show_it(
    two_mirrors: Fleet, repository: str, pushed: WorkingCopy, tmp_path: Path
) -> None:
    fast = two_mirrors.mirror_names()[0]
    before = seen_by_readers(two_mirrors, fast, repository, pushed)
    node = pushed.commit("third")
    with two_mirrors.paused("applier", SLOW):
        outcome = pushed.push(two_mirrors.ssh_url(repository)).ok()
        [late] = [line for line in outcome.text.splitlines() if "accepted; not yet visible on" in line]
        assert SLOW in late
        two_mirrors.wait(
            lambda: (
                _seq(two_mirrors, repository, fast, "seq") == _seq(two_mirrors, repository, "primary", "seq")
            ),
            "the fast mirror applied the push",
        )
        assert seen_by_readers(two_mirrors, fast, repository, pushed) == before
        assert pushed.hg.run("identify", "-r", node, two_mirrors.mirror_url(fast, repository)).status != 0
        clone = WorkingCopy.clone(pushed.hg, two_mirrors.mirror_url(fast, repository), tmp_path / "early")
        assert node not in clone.run("log", "-T", "{node}\n").ok().out
        assert clone.run("pull", "-r", node).status != 0
    wait_converged(two_mirrors, repository)
    for name in two_mirrors.mirror_names():
        assert pushed.hg.run("identify", "-r", node, two_mirrors.mirror_url(name, repository)).ok()
    check_repository(two_mirrors, repository)


def test_an_amend_a_publish_a_move_and_a_deletion_in_one_push_show_together_or_not_at_all(
    two_mirrors: Fleet, repository: str, pushed: WorkingCopy
) -> None:
    fast = two_mirrors.mirror_names()[0]
    before = seen_by_readers(two_mirrors, fast, repository, pushed)
    (pushed.directory / "file.txt").write_text("amended\n")
    pushed.run("commit", "--amend", "-m", "second, amended").ok()
    pushed.run("phase", "--public", "-r", "0").ok()
    pushed.run("bookmark", "-f", "-r", "0", "stable").ok()
    pushed.run("bookmark", "-d", "doomed").ok()
    with two_mirrors.paused("applier", SLOW):
        pushed.push(two_mirrors.ssh_url(repository), "-r", ".", "-B", "stable", "-B", "doomed").ok()
        two_mirrors.wait(
            lambda: (
                _seq(two_mirrors, repository, fast, "seq") == _seq(two_mirrors, repository, "primary", "seq")
            ),
            "the fast mirror applied the push",
        )
        assert seen_by_readers(two_mirrors, fast, repository, pushed) == before
    wait_converged(two_mirrors, repository)
    after = [seen_by_readers(two_mirrors, name, repository, pushed) for name in two_mirrors.mirror_names()]
    assert after[0]["keys"] == after[1]["keys"]
    assert "doomed" not in after[0]["keys"]["bookmarks"]
    assert after[0]["pushes"] == after[1]["pushes"]
    check_repository(two_mirrors, repository)


def test_two_bookmark_moves_while_a_mirror_lags_arrive_in_order(
    two_mirrors: Fleet, repository: str, pushed: WorkingCopy
) -> None:
    with two_mirrors.paused("applier", SLOW):
        for text in ("third", "fourth"):
            node = pushed.commit(text)
            pushed.run("bookmark", "-f", "stable").ok()
            pushed.push(two_mirrors.ssh_url(repository), "-B", "stable").ok()
    wait_converged(two_mirrors, repository)
    for name in two_mirrors.mirror_names():
        url = two_mirrors.mirror_url(name, repository)
        assert f"stable\t{node}" in pushed.hg.run("debugpushkey", url, "bookmarks").ok().out
    check_repository(two_mirrors, repository)


def test_a_name_deleted_and_used_again_while_a_mirror_is_paused(
    two_mirrors: Fleet, repository: str, pushed: WorkingCopy, tmp_path: Path
) -> None:
    other = WorkingCopy.init(two_mirrors.client(), tmp_path / "other")
    node = other.commit("unrelated", file="other.txt")
    with two_mirrors.paused("applier", SLOW):
        deleting = two_mirrors.start_cli("repo", "delete", repository, "--yes")
        two_mirrors.wait(lambda: repository not in two_mirrors.paths(), "the repository is deleted")
        creating = two_mirrors.start_cli("repo", "create", repository)
        two_mirrors.wait(lambda: repository in two_mirrors.paths(), "another is there by its name")
        other.push(two_mirrors.ssh_url(repository)).ok()
    finish(deleting).ok()
    finish(creating).ok()
    [push] = check_repository(two_mirrors, repository)
    assert push["changesets"] == [node]


def test_a_rename_while_a_mirror_is_paused(two_mirrors: Fleet, repository: str, pushed: WorkingCopy) -> None:
    renamed = f"{repository}-renamed"
    with two_mirrors.paused("applier", SLOW):
        renaming = two_mirrors.start_cli("repo", "rename", repository, renamed)
        two_mirrors.wait(lambda: renamed in two_mirrors.paths(), "the repository has its new name")
        pushed.commit("third")
        pushed.push(two_mirrors.ssh_url(renamed)).ok()
    finish(renaming).ok()
    check_repository(two_mirrors, renamed)
    for name in two_mirrors.mirror_names():
        assert get(two_mirrors, two_mirrors.mirror_url(name, f"{repository}/shortlog"))[0] == 404


def test_two_pushers_race_with_the_first_append_stalled(
    two_mirrors: Fleet, repository: str, pushed: WorkingCopy, tmp_path: Path
) -> None:
    second = WorkingCopy.clone(pushed.hg, two_mirrors.https_url(repository), tmp_path / "second")
    pushed.commit("of the first")
    second.commit("of the second", file="second.txt")
    url = two_mirrors.ssh_url(repository)
    two_mirrors.set_fault("push-before-append", "stall")
    first_push = pushed.hg.start("push", "-f", url, cwd=pushed.directory)
    two_mirrors.wait_stalled("push-before-append")
    second_push = second.hg.start("push", "-f", url, cwd=second.directory)
    two_mirrors.clear_fault("push-before-append")
    outcomes = [finish(first_push), finish(second_push)]
    assert outcomes[0].status == 0, outcomes
    if outcomes[1].status != 0:
        assert "Traceback" not in outcomes[1].text
        second.push(url).ok()
    assert len(check_repository(two_mirrors, repository)) == 3


def _seq(fleet: Fleet, path: str, host: str, name: str) -> int:
    shown = fleet.show(path)
    assert shown is not None
    copies = shown["copies"]
    [seq] = [copy[name] for copy in copies if copy["host"] == host]
    return int(seq)
