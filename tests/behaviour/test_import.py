"""`hgfleet repo import`: existing repositories enter the fleet with everything that they have."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.copies import read_copy
from tests.support.fleet import HGFLEET, Fleet, descendants
from tests.support.invariants import check_repository
from tests.support.repositories import WorkingCopy
from tests.support.waiting import wait_until


@pytest.fixture
def source(one_mirror: Fleet, tmp_path: Path) -> WorkingCopy:
    """A repository with public, draft and secret changesets, a bookmark and an amended changeset."""
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "source")
    for number in range(5):
        work.commit(f"change {number}")
    work.run("phase", "--public", "-r", "1").ok()
    work.run("bookmark", "feature", "-r", "3").ok()
    work.run("commit", "--amend", "-m", "change 4, better").ok()
    work.run("phase", "--force", "--secret", "-r", ".").ok()
    return work


def imported_copy(fleet: Fleet, path: str) -> dict[str, object]:
    [copy] = [c for c in fleet.cli_json("repo", "show", path)["copies"] if c["host"] == "primary"]
    return read_copy(Path(copy["path"]))


def test_an_import_brings_phases_bookmarks_and_markers(
    one_mirror: Fleet, repository: str, source: WorkingCopy
) -> None:
    done = one_mirror.cli("repo", "import", str(source.directory), repository).ok()

    assert done.out == f"imported {repository}: 6 changesets; visible on all 1 mirrors\n"
    copy = imported_copy(one_mirror, repository)
    listed = source.run("log", "--hidden", "-r", "all()", "-T", "{node} {phase}\n").ok().out.split()
    assert copy["nodes"] == listed[0::2]
    assert copy["phases"] == [("public", "draft", "secret").index(name) for name in listed[1::2]]
    assert copy["bookmarks"] == [["feature", source.node("3")]]
    assert len(copy["obsmarkers"]) == 1  # type: ignore[arg-type]
    [push] = check_repository(one_mirror, repository)
    assert push["user"].startswith("host:primary")


def test_an_import_that_is_repeated_finds_that_all_is_there(
    one_mirror: Fleet, repository: str, source: WorkingCopy
) -> None:
    one_mirror.cli("repo", "import", str(source.directory), repository).ok()

    again = one_mirror.cli("repo", "import", str(source.directory), repository).ok()

    assert again.out.startswith(f"imported {repository} was there already: 6 changesets")
    assert len(check_repository(one_mirror, repository)) == 1


def test_an_import_from_a_url_takes_what_is_served(
    one_mirror: Fleet, repository: str, source: WorkingCopy
) -> None:
    one_mirror.cli("repo", "import", str(source.directory), repository).ok()
    env = one_mirror.environment() | {
        "HGFLEET_DIR": str(one_mirror.directory),
        "SSL_CERT_FILE": one_mirror.ca_file,
    }

    done = subprocess.run(
        [str(HGFLEET), "repo", "import", one_mirror.https_url(repository), f"{repository}-again"],
        env=env,
        capture_output=True,
        check=True,
        text=True,
    )

    assert "imported" in done.stdout
    assert len(check_repository(one_mirror, f"{repository}-again")) == 1


def test_a_killed_import_leaves_nothing_and_may_be_repeated(
    one_mirror: Fleet, repository: str, source: WorkingCopy
) -> None:
    one_mirror.set_fault("push-before-append", "stall")
    env = one_mirror.environment() | {"HGFLEET_DIR": str(one_mirror.directory)}
    command = [str(HGFLEET), "repo", "import", str(source.directory), repository]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        one_mirror.wait_stalled("push-before-append")
        children = descendants(running.pid)
        running.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), what="its process is gone")
    one_mirror.clear_fault("push-before-append")

    one_mirror.cli("repo", "import", str(source.directory), repository).ok()

    assert len(check_repository(one_mirror, repository)) == 1


def test_an_interrupted_import_ends_at_once(one_mirror: Fleet, repository: str, source: WorkingCopy) -> None:
    one_mirror.set_fault("push-before-append", "stall")
    env = one_mirror.environment() | {"HGFLEET_DIR": str(one_mirror.directory)}
    command = [str(HGFLEET), "repo", "import", str(source.directory), repository]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        one_mirror.wait_stalled("push-before-append")
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(10) == 130
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()
    one_mirror.clear_fault("push-before-append")


def test_a_large_repository_goes_through_the_blob_store(
    one_mirror: Fleet, repository: str, tmp_path: Path
) -> None:
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "large")
    (tmp_path / "large" / "noise").write_bytes(os.urandom(3_000_000))
    work.commit("large")

    one_mirror.cli("repo", "import", str(work.directory), repository).ok()

    [_created, push] = one_mirror.cli_json("log", "show", repository)
    assert not push["payload"]["is_inline"]
    assert push["payload"]["size_bytes"] > 3_000_000
    check_repository(one_mirror, repository)


@pytest.mark.parametrize(
    ("extension", "name"), [("largefiles", "largefiles"), ("lfs", "LFS")], ids=["largefiles", "lfs"]
)
def test_what_is_not_supported_is_said_in_one_line_and_leaves_nothing(
    one_mirror: Fleet, repository: str, tmp_path: Path, extension: str, name: str
) -> None:
    add = ("--large",) if extension == "largefiles" else ()
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "source")
    (tmp_path / "source" / "file").write_bytes(b"x" * 1000)
    use = ("--config", f"extensions.{extension}=", "--config", "lfs.track=all()")
    work.run("add", *add, "file", *use).ok()
    work.run("commit", "-m", "large", *use).ok()

    refused = one_mirror.cli("repo", "import", str(work.directory), repository)

    assert refused.status == 1
    [line] = refused.err.splitlines()
    assert name.lower() in line.lower()
    assert repository not in [entry["path"] for entry in one_mirror.cli_json("repo", "list")]


def test_a_repository_with_something_else_in_it_is_left_alone(
    one_mirror: Fleet, repository: str, source: WorkingCopy, tmp_path: Path
) -> None:
    one_mirror.create(repository)
    other = WorkingCopy.init(one_mirror.client(), tmp_path / "other")
    other.commit("other")
    other.push(one_mirror.ssh_url(repository)).ok()

    refused = one_mirror.cli("repo", "import", str(source.directory), repository)

    assert refused.status == 1
    assert "nothing was changed" in refused.err
    assert len(check_repository(one_mirror, repository)) == 1


def test_a_path_without_a_repository_leaves_no_message_in_the_log(one_mirror: Fleet, tmp_path: Path) -> None:
    before = len(one_mirror.cli("log", "show", "--topic", "catalogue").out.splitlines())

    outcome = one_mirror.cli("repo", "import", str(tmp_path), "tests/from-nowhere")

    assert outcome.status == 1
    assert "nothing was changed" in outcome.err
    assert len(one_mirror.cli("log", "show", "--topic", "catalogue").out.splitlines()) == before
