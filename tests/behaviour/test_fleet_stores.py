"""A fleet whose accounts are in LDAP and whose large payloads are in S3, with the real servers of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hgfleet.adapters.ssh_key_files import ensure_key_pair
from tests.behaviour.conftest import LONG_LEASE
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository, get, get_json
from tests.support.repositories import WorkingCopy
from tests.support.s3_server import S3Server
from tests.support.server_process import can_connect
from tests.support.slapd import PEOPLE, Slapd, running_slapd

DORA, ERIK = "dora@example.org", "erik@example.org"
LARGE_BYTES = 6_000_000
BUNDLES = '\n[bundles]\ninterval = "1s"\ntypes = ["gzip-v2"]\n'


@dataclass
class Site:
    """The fleet and what it stands on."""

    fleet: Fleet
    slapd: Slapd
    s3: S3Server
    bucket: Path
    keys: Path

    def push(self, work: WorkingCopy, repository: str, account: str = DORA) -> tuple[int, str]:
        """Push as an account; return status and text."""
        ssh = self.fleet.endpoints["ssh"]
        url = f"ssh://{account.replace('@', '%40')}@{ssh['host']}:{ssh['port']}/{repository}"
        command = self.fleet.ssh_command(self.keys / account)
        pushed = work.push(url, "--config", f"ui.ssh={command}")
        return pushed.status, pushed.text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("stores")
    bucket = s3_server.make_bucket("fleet")
    (directory / "keys").mkdir()
    with running_slapd(directory / "slapd") as slapd:
        for account in (DORA, ERIK):
            key = ensure_key_pair(directory / "keys" / account, account)
            slapd.add_account(account, groups=["developers", "creators"], keys=[key])
        config = LONG_LEASE + slapd.config_text() + s3_server.config_text(bucket, prefix="payloads/")
        bundles = s3_server.make_bucket("fleet-bundles")
        s3_server.let_everybody_read(bundles)
        config += BUNDLES + s3_server.bundle_store_text("east", bundles, prefix="hg/")
        fleet = Fleet(directory / "fleet", config=config)
        try:
            yield Site(fleet.start(), slapd, s3_server, s3_server.data / bucket, directory / "keys")
        finally:
            fleet.close()


def large_change(work: WorkingCopy, name: str) -> str:
    (work.directory / name).write_bytes(os.urandom(LARGE_BYTES))
    work.run("add", name).ok()
    return work.commit(name)


def test_a_large_push_by_an_ldap_account_goes_through_s3_and_says_so(
    site: Site, repository: str, tmp_path: Path
) -> None:
    fleet = site.fleet
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    node = large_change(work, "large")

    status, text = site.push(work, repository)

    assert status == 0, text
    assert text.index("uploading 6 MB to the blob store") < text.index("recorded push in pushlog")
    clone = WorkingCopy.clone(fleet.client(), fleet.https_url(repository), tmp_path / "clone")
    assert clone.node("tip") == node
    [push] = check_repository(fleet, repository)
    assert push["user"] == DORA
    [blob] = [path for path in site.bucket.rglob("payloads/*/*") if path.stat().st_size > LARGE_BYTES]
    assert len(blob.name) == 64
    assert not list((fleet.directory / "blobs").rglob("*/*/*"))
    fleet.wait(
        lambda: site.slapd.search(PEOPLE, f"(mail={DORA})", "hgAccessDate"), "the date of last use is written"
    )

    work.commit("small")
    status, text = site.push(work, repository)
    assert status == 0, text
    assert "uploading" not in text


def test_bundles_are_published_to_a_bucket_and_cloned_from_there(
    site: Site, repository: str, tmp_path: Path
) -> None:
    fleet = site.fleet
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("bundled")
    assert site.push(work, repository)[0] == 0
    fleet.cli("repo", "set", repository, "--bundles", "on").ok()
    manifest = fleet.https_url(f"{repository}?cmd=clonebundles")
    fleet.wait(lambda: fleet.fetch(manifest).body, "the bundle is offered")
    url, *attributes = fleet.fetch(manifest).body.decode().split()
    assert url.startswith(site.s3.url_of("fleet-bundles", f"hg/{repository}/"))
    assert "ec2region=us-east-1" in attributes
    node = work.commit("after the bundle")
    assert site.push(work, repository)[0] == 0

    cloned = fleet.client().run("clone", fleet.https_url(repository), tmp_path / "clone").ok()

    assert f"applying clone bundle from {url}" in cloned.text
    assert WorkingCopy(fleet.client(), tmp_path / "clone").node("tip") == node


def test_without_the_blob_store_only_large_pushes_wait(site: Site, repository: str, tmp_path: Path) -> None:
    fleet = site.fleet
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    site.s3.stop()
    try:
        large_change(work, "refused")
        status, text = site.push(work, repository)
        assert status != 0
        assert "the blob store cannot be reached" in text
        assert "nothing was changed" in text
        other = WorkingCopy.init(fleet.client(), tmp_path / "other")
        other.commit("small")
        status, text = site.push(other, repository)
        assert status == 0, text
    finally:
        site.s3.start()
    status, text = site.push(work, repository)
    assert status == 0, text
    check_repository(fleet, repository)


def test_a_mirror_that_cannot_fetch_a_blob_waits_and_parks_nothing(
    site: Site, repository: str, tmp_path: Path
) -> None:
    fleet = site.fleet
    large, small = fleet.create(f"{repository}-large"), fleet.create(f"{repository}-small")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    with fleet.paused("applier", "mirror1"):
        node = large_change(work, "large")
        assert site.push(work, large)[0] == 0
        site.s3.stop()
    try:
        other = WorkingCopy.init(fleet.client(), tmp_path / "other")
        other.commit("small")
        assert site.push(other, small)[0] == 0
        fleet.wait(lambda: shown(fleet, small) == 1, "the other repository goes on")
        assert shown(fleet, large) == 0
        assert not fleet.cli_json("status")["parked"]
    finally:
        site.s3.start()
    fleet.wait(lambda: shown(fleet, large) == 1, "the mirror has fetched the blob")
    clone = WorkingCopy.clone(fleet.client(), fleet.https_url(large), tmp_path / "clone")
    assert clone.node("tip") == node


def metrics(fleet: Fleet) -> str:
    """Return what Prometheus would read."""
    return get(fleet, f"{fleet.endpoints['admin']}/-/metrics")[1].decode()


def shown(fleet: Fleet, repository: str) -> int:
    """Return how many pushes the mirror shows."""
    return len(get_json(fleet, fleet.https_url(f"{repository}/json-pushes")))


def test_log_ins_over_an_outage_of_ldap(site: Site, repository: str, tmp_path: Path) -> None:
    fleet = site.fleet
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("before")
    assert site.push(work, repository)[0] == 0
    site.slapd.stop()
    try:
        work.commit("during")
        status, text = site.push(work, repository)
        assert status == 0, text
        work.commit("a stranger's")
        status, text = site.push(work, repository, ERIK)
        assert status != 0
        assert "temporarily unavailable" in text
        seen = fleet.cli_json("status")["directory"]
        assert not seen["is_reachable"]
        assert "hgfleet_directory_reachable 0.0" in metrics(fleet)
        fleet.kill_child("ssh")
        port = int(fleet.endpoints["ssh"]["port"])
        fleet.wait(lambda: can_connect("localhost", port), "the SSH front is back")
        status, text = site.push(work, repository)
        assert status == 0, text
    finally:
        site.slapd.start()
    work.commit("after")
    assert site.push(work, repository, ERIK)[0] == 0
    site.slapd.set_enabled(ERIK, is_enabled=False)
    work.commit("revoked")
    assert site.push(work, repository, ERIK)[0] != 0
    assert len(check_repository(fleet, repository)) == 4


def test_accounts_are_shown_here_and_managed_elsewhere(site: Site) -> None:
    shown = site.fleet.cli_json("user", "show", DORA)
    assert shown["groups"] == ["creators", "developers"]
    assert shown["is_enabled"]
    assert site.fleet.cli("user", "show", "nobody").status == 1
    for command in (["add", "x"], ["list"], ["disable", DORA], ["groups", DORA, "x"]):
        refused = site.fleet.cli("user", *command)
        assert refused.status == 1
        assert "managed in LDAP" in refused.err
        assert "Traceback" not in refused.text
