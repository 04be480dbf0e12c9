"""A whole fleet behind a load balancer that sends PROXY headers, with an sshd for each connection."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import ROOT, finish
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository
from tests.support.openssh import OpenSshFleet
from tests.support.repositories import WorkingCopy

HEADER = b"PROXY TCP6 2001:db8::7 ::1 40000 22\r\n"
PROXIED = ROOT / "tests" / "support" / "proxied.py"


class BehindProxy(OpenSshFleet):
    """Its clients come through a load balancer; it starts its sshds itself."""

    def start(self) -> BehindProxy:
        self.sshd.accounts.write(["example"])
        Fleet.start(self)
        return self

    def ssh_command(self, key_file: Path | None = None) -> str:
        proxy = f"{sys.executable} {PROXIED} %h %p {HEADER.hex()}"
        return f"{super().ssh_command(key_file)} -o 'ProxyCommand={proxy}'"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BehindProxy]:
    directory = tmp_path_factory.mktemp("entrance") / "fleet"
    fleet = BehindProxy(directory, ssh='trusted_proxies = ["127.0.0.0/8"]\n')
    fleet.configure_program()
    try:
        yield fleet.start()
    finally:
        fleet.close()


def test_a_push_is_recorded_under_the_address_of_its_client(
    fleet: BehindProxy, repository: str, tmp_path: Path
) -> None:
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(repository)).ok()
    assert len(check_repository(fleet, repository)) == 1
    lines = [json.loads(line) for line in (fleet.directory / "logs" / "audit.log").open()]
    assert [(line["account"], line["client_address"], line["changes"]) for line in lines] == [
        ("example", "2001:db8::7", 1)
    ]


def test_a_session_goes_on_when_the_entrance_is_killed(
    fleet: BehindProxy, repository: str, tmp_path: Path
) -> None:
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    fleet.set_fault("push-before-checks", "stall")
    push = work.hg.start("push", fleet.ssh_url(repository), cwd=work.directory)
    fleet.wait_stalled("push-before-checks")
    fleet.kill_child("ssh-entrance")
    fleet.clear_fault("push-before-checks")
    finish(push, timeout_seconds=60).ok()
    work.commit("second")
    fleet.wait(lambda: work.push(fleet.ssh_url(repository)).status == 0, "a push works again")
