"""A fleet of several hosts: one `hgfleet run` tree per role, each stopped and killed by itself."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hgfleet.cli.copies import read_copy
from hgfleet.config.layout import HostLayout
from hgfleet.model.ids import HostName, RepoId
from tests.support.clients import HgClient, Outcome
from tests.support.fleet import is_alive
from tests.support.host_fleet import HostFleet
from tests.support.offload import FileServer

LONG = 300.0  # what makes bundles gives way to everything else on the machine
SITE = """
[site]
url = "https://hg.example.org"
[membership]
lease = "12s"
[bundles]
interval = "1s"
types = ["gzip-v2", "stream-v2"]
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFleet]:
    roles: dict[str, tuple[str, ...]] = {
        "hg1": ("primary", "coordinator"),
        "hg2": ("standby", "coordinator", "bundler"),
        "hg3": ("mirror", "bundler"),
        "hg4": ("mirror",),
    }
    directory = tmp_path_factory.mktemp("hosts")
    bundles = FileServer(directory)
    config = SITE + f'[bundles.stores.disk]\npath = "{bundles.root}"\nbase_url = "{bundles.url}"\n'
    running = HostFleet(directory / "fleet", roles, config=config)
    bundles.process.start()
    try:
        yield running.start()
    finally:
        running.close()
        bundles.process.stop()


class Work:
    """A client's repository, and the fleet's that it pushes to."""

    def __init__(self, fleet: HostFleet, path: str, directory: Path) -> None:
        self.fleet, self.path, self.directory = fleet, path, directory
        self.client: HgClient = fleet.client()
        self.client.run("init", directory).ok()

    def commit(self, text: str) -> None:
        (self.directory / "file").write_text(text)
        self.client.run("commit", "-A", "-m", text, cwd=self.directory).ok()

    def push(self, host: str = "hg1") -> Outcome:
        return self.client.run("push", self.fleet.ssh_url_on(host, self.path), cwd=self.directory)

    def tip_on(self, mirror: str) -> str:
        url = self.fleet.mirror_url(mirror, self.path)
        return self.client.run("identify", "--id", url).out.strip()

    @property
    def tip(self) -> str:
        return self.client.run("identify", "--id", cwd=self.directory).ok().out.strip().rstrip("+")


@pytest.fixture
def work(fleet: HostFleet, repository: str, tmp_path: Path) -> Work:
    fleet.create(repository)
    return Work(fleet, repository, tmp_path / "work")


def seq_on(fleet: HostFleet, host: str, path: str) -> int:
    """Return up to where a host's copy has a repository, by its files alone."""
    repository = RepoId(str(fleet.cli_json("repo", "show", path)["repository"]))
    layout = HostLayout(HostName(host), fleet.directory / "hosts" / host)
    return read_copy(layout, repository, is_primary=True).seq or 0


def test_what_is_pushed_to_the_primary_can_be_cloned_from_every_mirror(work: Work, tmp_path: Path) -> None:
    work.commit("one")

    assert "visible on all 2 mirrors" in work.push().ok().text
    for mirror in work.fleet.mirror_names():
        work.client.run("clone", work.fleet.mirror_url(mirror, work.path), tmp_path / mirror).ok()
        assert (tmp_path / mirror / "file").read_text() == "one"


def test_a_standby_refuses_a_push_in_one_line_and_takes_nothing(work: Work) -> None:
    work.commit("one")
    work.push().ok()
    work.commit("two")

    refused = work.push("hg2")

    assert refused.status != 0
    said = [line for line in refused.text.splitlines() if "this host" in line]
    assert len(said) == 1, refused
    assert "nothing was changed" in refused.text
    assert "visible on all 2 mirrors" in work.push().ok().text


def test_a_standby_has_what_the_primary_has_without_being_waited_for(work: Work) -> None:
    work.commit("one")
    work.push().ok()
    newest = seq_on(work.fleet, "hg1", work.path)

    work.fleet.wait(
        lambda: seq_on(work.fleet, "hg2", work.path) == newest, "the standby's copy is where the primary's is"
    )
    members = json.loads(work.fleet.admin("hg2", "/-/status")[1])["members"]
    assert [member["host"] for member in members] == ["hg3", "hg4"]


def test_the_load_balancer_can_tell_the_active_primary_by_its_readiness(fleet: HostFleet) -> None:
    assert fleet.admin("hg1", "/-/readyz")[0] == 200
    assert fleet.admin("hg2", "/-/readyz") == (503, "the log agent does not accept changes\n")
    assert fleet.admin("hg3", "/-/readyz")[0] == 200
    assert {fleet.admin(host.name, "/-/livez")[0] for host in fleet.hosts} == {200}


def test_every_host_reports_the_same_configuration(fleet: HostFleet) -> None:
    states = [json.loads(fleet.admin(host.name, "/-/status")[1]) for host in fleet.hosts]

    assert len({state["configuration_digest"] for state in states}) == 1
    assert [state["host"] for state in states] == ["hg1", "hg2", "hg3", "hg4"]


def test_the_doctor_finds_a_healthy_fleet_healthy_from_every_host(fleet: HostFleet) -> None:
    for name in ("hg1", "hg3"):
        outcome = fleet.cli_on(name, "doctor")
        assert outcome.status == 0, outcome
        assert outcome.out.endswith("everything is well\n")


def test_the_doctor_names_what_is_down_or_different_and_what_mends_it(fleet: HostFleet) -> None:
    other = fleet.directory / "other.toml"
    other.write_text((fleet.directory / "hgfleet.toml").read_text().replace("12s", "13s"))
    fleet.stop_role("hg4", "web")
    try:
        down = json.loads(fleet.cli("doctor", "--json").out)
        different = fleet.cli_on("hg1", "doctor", "--json", config=other)
    finally:
        fleet.run_role("hg4", "web")
        fleet.wait_serving("hg4")

    wrong = [finding for finding in down["findings"] if not finding["is_good"]]
    assert [finding["subject"] for finding in wrong] == ["certificates"], wrong
    assert "hgfleet run web on hg4" in wrong[0]["remedy"]
    assert different.status == 1
    assert different.out.count("another configuration than this host's file") == 4


def test_status_names_every_host_and_which_of_them_leads(fleet: HostFleet) -> None:
    fleet.stop_role("hg2", "standby")
    try:
        hosts = {host["host"]: host for host in fleet.cli_json("status")["hosts"]}
    finally:
        fleet.run_role("hg2", "standby")

    assert [name for name, host in hosts.items() if host["is_leading"]] == ["hg1"]
    assert [name for name, host in hosts.items() if not host["is_answering"]] == ["hg2"]


def test_a_repository_is_shown_on_every_host_with_that_hosts_copy(work: Work) -> None:
    work.commit("one")
    work.push().ok()

    for name in ("hg1", "hg3"):
        shown = json.loads(work.fleet.cli_on(name, "repo", "show", work.path, "--json").ok().out)
        assert shown["seq"] == shown["exposed_seq"] == 2
        assert [copy["host"] for copy in shown["copies"]] == [name]


def test_a_role_runs_once_per_host_and_only_where_the_configuration_has_it(fleet: HostFleet) -> None:
    twice = fleet.cli_on("hg3", "run", "mirror")
    elsewhere = fleet.cli_on("hg3", "run", "primary")

    assert (twice.status, twice.err) == (1, "hgfleet: mirror runs on this host already (host=hg3)\n")
    assert elsewhere.status == 1
    assert "does not give hg3 the role primary; it has bundler, mirror" in elsewhere.err


def test_a_run_without_its_files_says_which_setting_names_them(fleet: HostFleet) -> None:
    other = fleet.directory / "without.toml"
    text = (fleet.directory / "hgfleet.toml").read_text()
    text = text.replace("[site]", '[site]\nrun_directory = "elsewhere"')
    other.write_text(f'[http]\ncertificate = "no.pem"\n[ssh]\nhost_key = "no-key"\n{text}')

    for host, role, setting in (("hg3", "web", "http.certificate"), ("hg1", "primary", "ssh.host_key")):
        refused = fleet.cli_on(host, "run", role, config=other)
        assert refused.status == 78
        assert f"the file that {setting} names is not there" in refused.err


def test_a_mirror_told_to_stop_refuses_first_and_delays_nobody(work: Work) -> None:
    work.commit("one")
    work.push().ok()

    assert work.fleet.stop_role("hg4", "mirror") == 0
    try:
        assert not work.fleet.is_serving("hg4")
        work.commit("two")
        assert "visible on all 1 mirrors" in work.push().ok().text.replace("mirror\n", "mirrors\n")
    finally:
        work.fleet.run_role("hg4", "mirror")
        work.fleet.wait_serving("hg4")
    assert work.tip_on("hg4") == work.tip


def test_a_killed_primary_ends_with_all_its_processes_and_comes_back_whole(work: Work) -> None:
    work.commit("one")
    work.push().ok()
    before = work.fleet.children_of("hg1", "primary")

    work.fleet.kill_role("hg1", "primary")
    assert not [child for child in before if is_alive(child.pid)]
    assert work.tip_on("hg3") == work.tip
    work.fleet.run_role("hg1", "primary")

    work.fleet.wait(lambda: work.fleet.admin("hg1", "/-/readyz")[0] == 200, "the primary accepts pushes")
    work.commit("two")
    assert "visible on all 2 mirrors" in work.push().ok().text


def test_a_process_that_dies_is_started_again(fleet: HostFleet) -> None:
    [before] = [child for child in fleet.children_of("hg3", "mirror") if child.role == "applier"]

    before.signal(signal.SIGKILL)

    fleet.wait_replaced(before)
    fleet.wait_serving("hg3")


def test_a_drained_mirror_refuses_reads_over_a_restart_until_it_is_resumed(work: Work) -> None:
    fleet = work.fleet
    assert fleet.cli_on("hg3", "mirror", "drain", "hg4").ok().out.startswith("hg4 is drained")
    try:
        assert not fleet.is_serving("hg4")
        assert work.client.run("identify", fleet.mirror_url("hg4", work.path)).status != 0
        work.commit("one")
        assert "visible on all 1 mirror" in work.push().ok().text
        fleet.stop_role("hg4", "mirror")
        fleet.run_role("hg4", "mirror")
        fleet.wait(lambda: mirror_row(fleet, "hg4")["stage"] == "drained", "hg4 is drained as before")
        assert not fleet.is_serving("hg4")
    finally:
        fleet.cli("mirror", "resume", "hg4").ok()
    fleet.wait_serving("hg4")
    assert work.tip_on("hg4") == work.tip
    assert mirror_row(fleet, "hg4")["waits_for"] == ""


def mirror_row(fleet: HostFleet, name: str) -> dict[str, Any]:
    [row] = [row for row in fleet.cli_json("mirror", "list") if row["host"] == name]
    found: dict[str, Any] = row
    return found


def test_the_last_mirror_is_drained_only_when_that_is_said_twice(fleet: HostFleet) -> None:
    fleet.cli("mirror", "drain", "hg4").ok()
    try:
        refused = fleet.cli("mirror", "drain", "hg3")
        unknown = fleet.cli("mirror", "drain", "hg1")
    finally:
        fleet.cli("mirror", "resume", "hg4").ok()

    assert refused.status == 1
    assert "hg3 was not drained: no mirror would be left in service" in refused.err
    assert fleet.is_serving("hg3")
    assert unknown.err == "hgfleet: no such mirror (name=hg1); there are hg3, hg4\n"


def test_the_other_hosts_coordinator_takes_over_when_one_is_killed(work: Work) -> None:
    work.commit("one")
    work.push().ok()
    work.fleet.kill_role("hg1", "coordinator")
    try:
        work.commit("two")
        work.push().ok()
        work.fleet.wait(
            lambda: all(work.tip_on(mirror) == work.tip for mirror in ("hg3", "hg4")),
            "the push is shown on every mirror",
            40.0,
        )
    finally:
        work.fleet.run_role("hg1", "coordinator")


def test_one_of_two_bundlers_makes_bundles_and_the_other_goes_on_when_it_is_gone(work: Work) -> None:
    fleet, path = work.fleet, work.path
    clone = fleet.mirror_url("hg4", f"{path}?cmd=clonebundles")

    def offered() -> bytes:
        return fleet.fetch(clone).body

    work.commit("one")
    work.push().ok()
    fleet.cli("repo", "set", path, "--bundles", "on", "--bundle-growth", "0").ok()
    fleet.wait(offered, "bundles made on the standby", LONG)
    before = offered()
    fleet.kill_role("hg2", "bundler")
    try:
        work.commit("two")
        work.push().ok()
        fleet.wait(lambda: offered() != before, "bundles made on the mirror", LONG)
    finally:
        fleet.run_role("hg2", "bundler")

    makers = [row["identity"] for row in fleet.cli_json("log", "show") if row.get("kind") == "bundles"]
    assert list(dict.fromkeys(makers))[:2] == ["host:hg2", "host:hg3"]
