"""The cases that break services which replicate after the commit, through a whole fleet."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.clients import CURRENT_HG, clean_environment, finish, run
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository
from tests.support.repositories import WorkingCopy

pytestmark = pytest.mark.every_topology
MANY_PUSHES = 200


def test_a_phase_move_and_new_changesets_arrive_together(
    two_mirrors: Fleet, repository: str, tmp_path: Path
) -> None:
    work = _draft_work(two_mirrors, repository, tmp_path)
    old = work.node()
    work.run("phase", "--public", "-r", old).ok()
    new = work.commit("second")

    work.push(two_mirrors.ssh_url(repository)).ok()

    check_repository(two_mirrors, repository)
    for name in two_mirrors.mirror_names():
        clone = WorkingCopy.clone(work.hg, two_mirrors.mirror_url(name, repository), tmp_path / name)
        phases = clone.run("log", "-T", "{node} {phase}\n").ok().out.split("\n")
        assert phases[:2] == [f"{new} draft", f"{old} public"]


def test_the_last_bookmark_deleted_together_with_a_commit(
    two_mirrors: Fleet, repository: str, tmp_path: Path
) -> None:
    work = _draft_work(two_mirrors, repository, tmp_path)
    work.run("bookmark", "only").ok()
    work.push(two_mirrors.ssh_url(repository), "-B", "only")
    work.run("bookmark", "-d", "only").ok()
    work.commit("second")

    work.push(two_mirrors.ssh_url(repository), "-r", ".", "-B", "only").ok()

    assert len(check_repository(two_mirrors, repository)) == 2
    for name in two_mirrors.mirror_names():
        url = two_mirrors.mirror_url(name, repository)
        assert work.hg.run("debugpushkey", url, "bookmarks").ok().out == ""


def test_changes_without_changesets_have_a_seq_and_no_push_id(
    two_mirrors: Fleet, repository: str, tmp_path: Path
) -> None:
    work = _draft_work(two_mirrors, repository, tmp_path)
    work.run("bookmark", "later").ok()
    work.push(two_mirrors.ssh_url(repository), "-B", "later")

    assert len(check_repository(two_mirrors, repository)) == 1
    messages = two_mirrors.cli_json("log", "show", repository)
    assert [message["body"].get("push_id") for message in messages if message["kind"] == "push"] == [1, None]


def test_what_an_administrator_does_on_the_host_reaches_every_mirror(
    two_mirrors: Fleet, repository: str, tmp_path: Path
) -> None:
    work = _draft_work(two_mirrors, repository, tmp_path)
    hgrc = tmp_path / "hgrc"
    hgrc.write_text(two_mirrors.cli("render", "hgrc").ok().out)
    [primary] = [
        copy["path"]
        for copy in two_mirrors.cli_json("repo", "show", repository)["copies"]
        if copy["host"] == "primary"
    ]
    env = clean_environment(tmp_path) | {"HGRCPATH": str(hgrc)}

    for words in (["bookmark", "-r", "0", "pinned"], ["phase", "--public", "-r", "0"]):
        run([str(CURRENT_HG), "-R", primary, *words], env=env).ok()
    refused = run([str(CURRENT_HG), "-R", primary, "debugstrip", "-r", "0"], env=env)

    assert refused.status != 0
    check_repository(two_mirrors, repository)
    for name in two_mirrors.mirror_names():
        url = two_mirrors.mirror_url(name, repository)
        assert "pinned" in work.hg.run("debugpushkey", url, "bookmarks").ok().out


@pytest.mark.one_machine
def test_many_pushes_to_one_repository_while_another_is_stuck(
    two_mirrors: Fleet, repository: str, tmp_path: Path
) -> None:
    stuck = f"{repository}-stuck"
    other = _draft_work(two_mirrors, stuck, tmp_path / "other")
    work = _draft_work(two_mirrors, repository, tmp_path)
    other.commit("held up")
    two_mirrors.set_fault("push-before-append", "stall")
    held = other.hg.start("push", two_mirrors.ssh_url(stuck), cwd=other.directory)
    with _held_session(two_mirrors):
        _push_many(two_mirrors, repository, work, MANY_PUSHES)
        assert held.poll() is None
    assert finish(held).status == 0
    assert len(check_repository(two_mirrors, repository)) == 1 + MANY_PUSHES
    assert len(check_repository(two_mirrors, stuck)) == 2


@contextmanager
def _held_session(fleet: Fleet) -> Iterator[None]:
    """Hold the session that comes by the append next, and no other."""
    point = "push-before-append"
    fleet.wait_stalled(point)
    pid = int((fleet.faults / f"{point}.reached").read_text())
    os.kill(pid, signal.SIGSTOP)
    fleet.clear_fault(point)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _push_many(fleet: Fleet, path: str, work: WorkingCopy, count: int) -> None:
    """Commit and push `count` changesets one by one, all from one Mercurial process."""
    script = Path(__file__).parents[1] / "support" / "many_pushes.py"
    url, ssh = fleet.ssh_url(path), fleet.ssh_command()
    words = [*fleet.customer(), sys.executable, str(script), str(work.directory), url, ssh, str(count)]
    run(words, env=work.hg.environment(), timeout_seconds=600).ok()


def _draft_work(fleet: Fleet, path: str, directory: Path) -> WorkingCopy:
    """Return a clone with one changeset, pushed as a draft."""
    fleet.create(path, "--non-publishing")
    directory.mkdir(parents=True, exist_ok=True)
    work = WorkingCopy.init(fleet.client(), directory / "work")
    work.commit("first")
    work.push(fleet.ssh_url(path)).ok()
    return work
