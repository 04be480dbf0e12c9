"""Every clone is counted once, with where it came from and why it took a bundle or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters.bundle_offers import OfferedManifest
from hgfleet.adapters.demand_counts import DemandCounts
from hgfleet.adapters.location_files import LocationOptions
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.demand import CloneReason
from hgfleet.model.ids import Digest, Seq
from tests.support.clients import CURRENT_HG, OLDER_HG, HgClient
from tests.support.exposures import Exposures, build
from tests.support.mirror_host import MirrorHost
from tests.support.web_client import WebClient
from tests.support.web_process import WebProcess

STEPS = ("first changesets", "bookmarks")
LAST = Seq(len(STEPS))
NULL = "0" * 40
WEST = "198.51.100.7"


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("counted")
    return build(directory, HgClient(CURRENT_HG, directory), STEPS)


@pytest.fixture
def host(tmp_path: Path) -> MirrorHost:
    return MirrorHost(tmp_path / "host")


@pytest.fixture
def web(host: MirrorHost) -> WebClient:
    locations = LocationOptions(places=(("198.51.100.0/24", "ec2region", "us-west-2"),))
    return WebClient(replace(host.site(), locations=locations))


def offer(url: str, size_bytes: int = 1) -> OfferedManifest:
    entry = ManifestEntry(url, BundleType.GZIP_V2, "gzip-v2", size_bytes, Digest("ab" * 32), "store", {})
    return OfferedManifest(Seq(1), (entry,))


def counted(host: MirrorHost) -> dict[tuple[str, CloneReason], int]:
    counts = DemandCounts(host.directory / "demand.sqlite").last_day()
    return {(key.location, key.reason): count.clones for key, count in counts.items()}


def clone(web: WebClient, head: str, more: str = "", **environ: str) -> int:
    url = f"/app?cmd=getbundle&bundlecaps=HG20&cg=1&common={NULL}&heads={head}{more}"
    return len(web.get(url, **environ).body)


def head_of(exposures: Exposures) -> str:
    return exposures.hg.run("-R", str(exposures.full), "log", "-r", "tip", "-T", "{node}").ok().out


def test_a_clone_without_bundles_is_counted_with_its_bytes(
    host: MirrorHost, web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, LAST)
    sent = clone(web, head_of(exposures)) + clone(web, head_of(exposures), REMOTE_ADDR=WEST)
    counts = DemandCounts(host.directory / "demand.sqlite").last_day()
    assert {key.repository for key in counts} == {repository}
    assert {(key.location, key.reason) for key in counts} == {
        ("", CloneReason.NO_BUNDLES),
        ("ec2region=us-west-2", CloneReason.NO_BUNDLES),
    }
    assert sum(count.size_bytes for count in counts.values()) == sent


@pytest.mark.parametrize(
    ("said", "agent", "reason"),
    [
        ("&cbattempted=1", "mercurial/proto-1.0 (Mercurial 7.2.4)", CloneReason.TRIED),
        ("&cbattempted=0", "mercurial/proto-1.0 (Mercurial 7.2.4)", CloneReason.BYPASSED),
        ("&cbattempted=0", "mercurial/proto-1.0", CloneReason.NOT_ENABLED),
        ("", "mercurial/proto-1.0 (Mercurial 3.4)", CloneReason.UNKNOWN),
    ],
)
def test_one_that_comes_although_there_are_bundles_is_counted_with_the_reason(
    host: MirrorHost, web: WebClient, exposures: Exposures, said: str, agent: str, reason: CloneReason
) -> None:
    host.offer(host.add("app", exposures.full, LAST), offer("https://cdn.example/1.hg"))
    clone(web, head_of(exposures), said, HTTP_USER_AGENT=agent)
    assert counted(host) == {("", reason): 1}


def test_what_is_offered_counts_as_a_clone_by_bundle_and_nothing_offered_does_not(
    host: MirrorHost, web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, LAST)
    web.get("/app?cmd=clonebundles")
    assert counted(host) == {}
    host.offer(repository, offer("https://cdn.example/1.hg", 700))
    web.get("/app?cmd=clonebundles", REMOTE_ADDR=WEST)
    [(key, count)] = DemandCounts(host.directory / "demand.sqlite").last_day().items()
    assert (key.location, key.reason, count.clones, count.size_bytes) == (
        "ec2region=us-west-2",
        CloneReason.BUNDLE,
        1,
        700,
    )


@pytest.mark.parametrize(
    "question",
    [
        "cmd=getbundle&bundlecaps=HG20&cg=1&common={head}&heads={head}",
        "cmd=getbundle&bundlecaps=HG20&cg=0&listkeys=bookmarks&common={null}&heads={head}",
        "cmd=getbundle&bundlecaps=HG20&cg=1&common={null}&heads={null}",
        "cmd=changegroup&roots={head}",
        "cmd=capabilities",
        "cmd=heads",
    ],
)
def test_what_is_no_full_clone_is_not_counted(
    host: MirrorHost, web: WebClient, exposures: Exposures, question: str
) -> None:
    host.add("app", exposures.full, LAST)
    assert web.get("/app?" + question.format(head=head_of(exposures), null=NULL)).status == 200
    assert counted(host) == {}


@pytest.mark.parametrize("hg", [CURRENT_HG, OLDER_HG], ids=["current", "6"])
def test_real_clients_are_counted_once_whatever_they_do(
    tmp_path: Path, host: MirrorHost, exposures: Exposures, hg: Path
) -> None:
    repository = host.add("app", exposures.full, LAST)
    web = WebProcess(tmp_path / "web", host.site(), workers=1)
    try:
        client = web.client(HgClient(hg, tmp_path))
        url = f"{web.base_url}/app"
        client.run("clone", "-q", url, str(tmp_path / "plain")).ok()
        client.run("-R", str(tmp_path / "plain"), "pull").ok()
        assert counted(host) == {("", CloneReason.NO_BUNDLES): 1}
        host.offer(repository, offer(f"{web.base_url}/nowhere.hg"))
        bypassed = ("--config", "ui.clonebundles=false")
        client.run("clone", "-q", *bypassed, url, str(tmp_path / "bypassed")).ok()
        falling_back = ("--config", "ui.clonebundlefallback=true")
        client.run("clone", "-q", *falling_back, url, str(tmp_path / "tried")).ok()
        assert counted(host) == {
            ("", CloneReason.NO_BUNDLES): 1,
            ("", CloneReason.BYPASSED): 1,
            ("", CloneReason.BUNDLE): 1,
            ("", CloneReason.TRIED): 1,
        }
    finally:
        web.stop()
