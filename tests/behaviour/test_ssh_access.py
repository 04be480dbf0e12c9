"""Who may do what over SSH, through real ssh and hg: keys, groups, refusals before any data is sent."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Outcome, run
from tests.support.fleet import FRONTS, Fleet
from tests.support.invariants import check_repository
from tests.support.repositories import WorkingCopy

pytestmark = pytest.mark.parametrize("one_mirror", FRONTS, indirect=True)
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Person:
    """An account with a key of its own."""

    fleet: Fleet
    name: str
    key: Path

    def ssh(self, command: str) -> Outcome:
        return self.fleet.ssh(command, account=self.name, key_file=self.key)

    def push(self, work: WorkingCopy, repository: str, *, variables: str = "") -> Outcome:
        ssh = f"{self.fleet.ssh_command(self.key)}{variables}"
        url = self.fleet.ssh_url(repository, account=self.name)
        return work.run("push", "-f", "--config", f"ui.ssh={ssh}", url)

    def clone(self, work: WorkingCopy, repository: str, directory: Path) -> Outcome:
        ssh = self.fleet.ssh_command(self.key)
        url = self.fleet.ssh_url(repository, account=self.name)
        return work.hg.run("clone", "--config", f"ui.ssh={ssh}", url, directory)


def add_person(fleet: Fleet, name: str, *groups: str) -> Person:
    key = fleet.directory.parent / f"{name}.key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]).ok()
    options = [word for group in groups for word in ("--group", group)]
    fleet.cli("user", "add", name, *options, "--key", f"{key}.pub").ok()
    return Person(fleet, name, key)


@pytest.fixture
def reader(one_mirror: Fleet) -> Person:
    return add_person(one_mirror, f"reader{next(_numbers)}", "readers")


@pytest.fixture
def developer(one_mirror: Fleet) -> Person:
    return add_person(one_mirror, f"developer{next(_numbers)}", "developers")


@pytest.fixture
def work(one_mirror: Fleet, tmp_path: Path) -> WorkingCopy:
    work = WorkingCopy.init(one_mirror.client(), tmp_path / "work")
    work.commit("first", content="x" * 100_000)
    return work


def audit_lines(fleet: Fleet) -> list[dict[str, Any]]:
    [path] = fleet.directory.rglob("audit*")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_member_of_a_writers_group_may_push_and_is_named_in_the_pushlog(
    one_mirror: Fleet, repository: str, work: WorkingCopy, developer: Person
) -> None:
    one_mirror.create(repository, "--writers", "developers")
    developer.push(work, repository).ok()
    [push] = check_repository(one_mirror, repository)
    assert push["user"] == developer.name
    [line] = [line for line in audit_lines(one_mirror) if line["account"] == developer.name]
    assert (line["changes"], line["last_seq"]) == (1, 2)


def test_anybody_else_is_refused_before_sending_data_and_may_read(
    one_mirror: Fleet, repository: str, work: WorkingCopy, reader: Person, tmp_path: Path
) -> None:
    one_mirror.create(repository, "--writers", "developers")
    refused = reader.push(work, repository)
    assert refused.status == 255
    assert "remote: abort: you may not push to this repository" in refused.text
    assert "remote: -" not in refused.text
    assert "adding changesets" not in refused.text
    assert "Traceback" not in refused.text
    assert check_repository(one_mirror, repository) == []

    reader.clone(work, repository, tmp_path / "clone").ok()


def test_a_bookmark_is_a_write_too(
    one_mirror: Fleet, repository: str, work: WorkingCopy, developer: Person, reader: Person
) -> None:
    one_mirror.create(repository, "--writers", "developers")
    developer.push(work, repository).ok()
    work.run("bookmark", "mine").ok()
    ssh = one_mirror.ssh_command(reader.key)
    refused = work.run(
        "push", "-B", "mine", "--config", f"ui.ssh={ssh}", one_mirror.ssh_url(repository, reader.name)
    )
    assert refused.status != 0
    assert "you may not push" in refused.text
    seen = work.run("identify", "-B", one_mirror.ssh_url(repository)).ok()
    assert "mine" not in seen.out


def test_a_disabled_account_is_told_so_in_one_line(one_mirror: Fleet, developer: Person) -> None:
    developer.ssh("").ok()
    one_mirror.cli("user", "disable", developer.name).ok()
    for command in ("", "hg -R tests/x serve --stdio", "clone x"):
        outcome = developer.ssh(command)
        assert outcome.status == 1
        assert outcome.out == ""
        assert outcome.err.strip() == "abort: this account is disabled (ask an operator of this site)"


def test_a_key_that_is_not_the_accounts_opens_nothing(
    one_mirror: Fleet, developer: Person, reader: Person
) -> None:
    outcome = one_mirror.ssh("", account=developer.name, key_file=reader.key)
    assert outcome.status == 255
    assert "Permission denied" in outcome.err


def test_a_damaged_directory_is_not_permission_denied(one_mirror: Fleet, developer: Person) -> None:
    [path] = one_mirror.directory.glob("directory.toml")
    good = path.read_bytes()
    path.write_bytes(b"[accounts\n" + good)
    try:
        outcome = developer.ssh("")
        assert outcome.status in {75, 255}  # the embedded server can only close the connection
        assert "temporarily unavailable, nothing was changed" in outcome.err
        assert "Permission denied" not in outcome.err
    finally:
        path.write_bytes(good)
    developer.ssh("").ok()


def test_an_account_that_was_seen_before_an_outage_goes_on(one_mirror: Fleet, developer: Person) -> None:
    developer.ssh("").ok()
    [path] = one_mirror.directory.glob("directory.toml")
    good = path.read_bytes()
    path.write_bytes(b"[accounts\n" + good)
    try:
        assert developer.name in developer.ssh("").ok().text
    finally:
        path.write_bytes(good)


def test_creating_over_ssh_needs_a_creators_group(
    one_mirror: Fleet, work: WorkingCopy, developer: Person
) -> None:
    refused = developer.ssh("clone notes")
    assert refused.status == 1
    assert len(refused.err.splitlines()) == 1

    creator = add_person(one_mirror, f"creator{next(_numbers)}", "creators")
    created = creator.ssh("clone notes").ok()
    path = f"users/{creator.name}/notes"
    assert path in created.out
    creator.push(work, path).ok()
    work.commit("second")
    assert developer.push(work, path).status == 255
    again = creator.ssh("clone notes")
    assert again.status == 1
    assert len(again.err.splitlines()) == 1
    assert len(check_repository(one_mirror, path)) == 1


def test_anybody_may_ask_for_a_repositorys_groups_and_settings(
    one_mirror: Fleet, repository: str, reader: Person
) -> None:
    one_mirror.create(repository, "--writers", "developers", "--non-publishing")
    groups = reader.ssh(f"repo-group {repository}").ok()
    assert groups.out == f"{repository} may be pushed to by: developers\n"
    settings = reader.ssh(f"repo-config {repository}").ok()
    assert "publishing = no\n" in settings.out
    assert "writers = developers\n" in settings.out
    missing = reader.ssh("repo-config tests/not-there")
    assert missing.status == 1
    assert missing.out == ""
    assert len(missing.err.splitlines()) == 1


def test_only_service_accounts_push_for_a_person(
    one_mirror: Fleet, repository: str, work: WorkingCopy, developer: Person
) -> None:
    one_mirror.create(repository, "--writers", "developers")
    variables = shlex.join(["", "-o", "SetEnv=AUTOLAND_REQUEST_USER=carol"]).removeprefix("''")
    developer.push(work, repository, variables=variables).ok()
    [push] = check_repository(one_mirror, repository)
    assert push["user"] == developer.name


def test_no_terminal_no_forwarding_no_subsystem(one_mirror: Fleet, developer: Person) -> None:
    ssh = one_mirror.endpoints["ssh"]
    words = [*one_mirror.ssh_command(developer.key).split(), "-p", str(ssh["port"])]
    target = f"{developer.name}@{ssh['host']}"
    env = one_mirror.environment()
    terminal = run([*words, "-tt", target], env=env)
    assert "PTY allocation request failed" in terminal.err
    forwarded = run([*words, "-o", "ExitOnForwardFailure=yes", "-W", "localhost:22", target], env=env)
    assert forwarded.status == 255
    assert forwarded.out == ""
    backwards = run([*words, "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:22", target, "x"], env=env)
    assert backwards.status == 255
    subsystem = run([*words, "-s", target, "sftp"], env=env)
    assert subsystem.status != 0


def test_every_visit_leaves_one_audit_line(one_mirror: Fleet, developer: Person) -> None:
    developer.ssh("")
    developer.ssh("hg -R tests/not-there serve --stdio")
    developer.ssh("rm -rf /; 'x")
    mine = [line for line in audit_lines(one_mirror) if line["account"] == developer.name]
    assert [(line["command"], line["exit"], line["code"]) for line in mine] == [
        ("banner", 0, "ok"),
        ("hg -R tests/not-there serve --stdio", 1, "repo.unknown"),
        ("refused", 1, "command.refused"),
    ]
