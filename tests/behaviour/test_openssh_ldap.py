"""The whole way in as a large site has it: hg, sshd, AuthorizedKeysCommand, LDAP, forced command, session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hgfleet.adapters.ssh_key_files import ensure_key_pair
from tests.behaviour.conftest import LONG_LEASE
from tests.support.clients import Outcome
from tests.support.invariants import check_repository
from tests.support.openssh import OpenSshFleet
from tests.support.repositories import WorkingCopy
from tests.support.slapd import Slapd, running_slapd

DORA, ERIK = "dora@example.org", "erik@example.org"


@dataclass
class Site:
    """The fleet and what it stands on."""

    fleet: OpenSshFleet
    slapd: Slapd
    keys: Path

    def push(self, work: WorkingCopy, repository: str, account: str) -> Outcome:
        """Push as an account, whose `@` clients write as %40."""
        url = self.fleet.ssh_url(repository, account.replace("@", "%40"))
        return work.push(url, "--config", f"ui.ssh={self.fleet.ssh_command(self.keys / account)}")

    def banner(self, account: str) -> Outcome:
        """Log in as an account."""
        return self.fleet.ssh("", account=account, key_file=self.keys / account)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("openssh-ldap")
    (directory / "keys").mkdir()
    with running_slapd(directory / "slapd") as slapd:
        for account in (DORA, ERIK):
            key = ensure_key_pair(directory / "keys" / account, account)
            slapd.add_account(account, groups=["developers"], keys=[key])
        fleet = OpenSshFleet(directory / "fleet", config=LONG_LEASE + slapd.config_text())
        fleet.accounts_elsewhere = (DORA, ERIK)
        try:
            yield Site(fleet.start(), slapd, directory / "keys")
        finally:
            fleet.close()


def test_accounts_of_ldap_push_through_sshd_and_hear_of_an_outage(
    site: Site, repository: str, tmp_path: Path
) -> None:
    site.fleet.create(repository)
    work = WorkingCopy.init(site.fleet.client(), tmp_path / "work")
    work.commit("first")
    site.push(work, repository, DORA).ok()
    [push] = check_repository(site.fleet, repository)
    assert push["user"] == DORA

    site.slapd.stop()
    try:
        work.commit("during the outage, by somebody seen before")
        site.push(work, repository, DORA).ok()
        work.commit("by somebody who was not")
        for outcome in (site.push(work, repository, ERIK), site.banner(ERIK)):
            assert outcome.status in {75, 255}
            assert "temporarily unavailable, nothing was changed: the directory of accounts" in outcome.text
            assert "Permission denied" not in outcome.text
    finally:
        site.slapd.start()

    site.push(work, repository, ERIK).ok()
    site.slapd.set_enabled(ERIK, is_enabled=False)
    refused = site.banner(ERIK)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("abort: this account is disabled")
    assert len(check_repository(site.fleet, repository)) == 3
