"""Plays the sessions in this directory and compares every line that a person would see.

A session is a text file: a line `$ command` is run by sh in an empty directory with hgfleet and hg on PATH;
the lines up to the next command are what it prints, both streams, then `[status]` unless that is 0. `*` in an
expected line stands for anything, `?` for one character. A session whose name begins with `fleet-` runs
beside a fleet: commands find it by HGFLEET_DIR, and $SSH_URL, $HTTPS_URL, $HG_SSH and $CA say where it is.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import clean_environment, run
from tests.support.fleet import Fleet

SESSIONS = sorted(Path(__file__).parent.glob("*.txt"))
ALONE = [path for path in SESSIONS if not path.name.startswith("fleet-")]
BESIDE_A_FLEET = [path for path in SESSIONS if path.name.startswith("fleet-")]


@dataclass(frozen=True, slots=True)
class Step:
    """One command and what it shall print."""

    command: str
    expected: list[str]


def read_session(path: Path) -> list[Step]:
    steps: list[Step] = []
    for line in path.read_text().splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], []))
        elif steps:
            steps[-1].expected.append(line)
        else:
            assert line.startswith("#"), f"{path.name}: {line}"
    return steps


def play(steps: list[Step], directory: Path, env: dict[str, str]) -> Iterator[tuple[Step, list[str]]]:
    for step in steps:
        done = run(["sh", "-c", f"exec 2>&1; {step.command}"], cwd=directory, env=env)
        status = [f"[{done.status}]"] if done.status else []
        yield step, done.out.splitlines() + status


def check(path: Path, directory: Path, env: dict[str, str]) -> None:
    for step, printed in play(read_session(path), directory, env):
        expected = "\n".join(step.expected).rstrip("\n").splitlines()
        report = "\n".join([f"$ {step.command}", *printed])
        assert len(printed) == len(expected), report
        for line, pattern in zip(printed, expected, strict=True):
            assert fnmatch.fnmatchcase(line, pattern.replace("[", "[[]")), f"{pattern!r}\n{report}"


@pytest.mark.parametrize("path", ALONE, ids=lambda path: path.stem)
def test_a_session_looks_as_written(path: Path, tmp_path: Path) -> None:
    check(path, tmp_path, clean_environment(tmp_path))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    running = Fleet(tmp_path_factory.mktemp("transcripts") / "fleet")
    try:
        yield running.start()
    finally:
        running.close()


@pytest.mark.parametrize("path", BESIDE_A_FLEET, ids=lambda path: path.stem)
def test_a_session_beside_a_fleet_looks_as_written(path: Path, fleet: Fleet, tmp_path: Path) -> None:
    env = clean_environment(tmp_path) | {
        "HGFLEET_DIR": str(fleet.directory),
        "SSH_URL": fleet.ssh_url("").rstrip("/"),
        "HTTPS_URL": fleet.https_url().rstrip("/"),
        "HG_SSH": fleet.ssh_command(),
        "CA": fleet.ca_file,
    }
    check(path, tmp_path, env)
