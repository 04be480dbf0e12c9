"""What clone bundles there are, for programs and for people, as this mirror offers them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hgfleet.adapters.bundle_offers import OfferedManifest
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.fleet_records import Stage
from hgfleet.model.ids import Digest, Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import Exposures, build
from tests.support.mirror_host import MirrorHost
from tests.support.web_client import WebClient

STEPS = ("first changesets", "bookmarks")
LAST = Seq(len(STEPS))
SHA256 = Digest("ab" * 32)


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Exposures:
    directory = tmp_path_factory.mktemp("listed")
    return build(directory, HgClient(CURRENT_HG, directory), STEPS)


@pytest.fixture
def host(tmp_path: Path) -> MirrorHost:
    return MirrorHost(tmp_path / "host")


@pytest.fixture
def web(host: MirrorHost) -> WebClient:
    return WebClient(replace(host.site(), site_name="Example <Hosting>"))


def entry(url: str, kind: BundleType, attributes: dict[str, str] | None = None) -> ManifestEntry:
    return ManifestEntry(url, kind, f"{kind.value}-spec", 3 * 1024 * 1024, SHA256, "ams", attributes or {})


CDN = entry("https://cdn.example/a.zstd.hg", BundleType.ZSTD, {"cdn": "true", "REQUIRESNI": "true"})
WEST = entry("https://west.example/a.zstd.hg", BundleType.ZSTD, {"ec2region": "us-west-2"})
PACKED = entry("https://west.example/a.packed1.hg", BundleType.PACKED1)


def offer(host: MirrorHost, exposures: Exposures, path: str, *entries: ManifestEntry, seq: int = 1) -> None:
    host.offer(host.add(path, exposures.full, LAST), OfferedManifest(Seq(seq), entries))


def test_programs_are_told_each_type_with_all_its_places(
    host: MirrorHost, web: WebClient, exposures: Exposures
) -> None:
    assert web.get("/-/bundles.json").json == {}
    host.add("plain", exposures.full, LAST)
    offer(host, exposures, "team/app", CDN, WEST, PACKED)
    listed = web.get("/-/bundles.json").json
    assert list(listed) == ["team/app"]
    assert list(listed["team/app"]) == ["zstd", "packed1"]
    assert listed["team/app"]["zstd"] == {
        "url": CDN.url,
        "size_bytes": CDN.size_bytes,
        "sha256": SHA256,
        "spec": "zstd-spec",
        "places": [
            {"url": CDN.url, "attributes": {"cdn": "true", "REQUIRESNI": "true"}},
            {"url": WEST.url, "attributes": {"ec2region": "us-west-2"}},
        ],
    }


def test_a_change_of_the_offer_or_of_what_is_exposed_is_seen_at_once(
    host: MirrorHost, web: WebClient, exposures: Exposures
) -> None:
    repository = host.add("app", exposures.full, Seq(1))
    host.offer(repository, OfferedManifest(LAST, (CDN,)))
    assert web.get("/-/bundles.json").json == {}, "its changesets are not exposed yet"
    host.expose(repository, LAST)
    assert list(web.get("/-/bundles.json").json["app"]) == ["zstd"]
    host.offer(repository, OfferedManifest(LAST, (PACKED,)))
    assert list(web.get("/-/bundles.json").json["app"]) == ["packed1"]
    host.bind("moved", repository)
    host.unbind("app")
    assert list(web.get("/-/bundles.json").json) == ["moved"]


def test_people_are_told_what_there_is_and_how_to_use_it(
    host: MirrorHost, web: WebClient, exposures: Exposures
) -> None:
    offer(host, exposures, "team/app", CDN, WEST)
    reply = web.get("/-/bundles/", HTTP_ACCEPT="text/html")
    assert reply.status == 200
    page = ElementTree.fromstring(_as_xml(reply.text))
    text = "".join(page.itertext())
    assert "Example <Hosting>" in text
    assert "3.0 MiB REQUIRESNI=true cdn=true" in text
    assert "clonebundleprefers = cdn=true, COMPRESSION=zstd" in text
    assert "hg clone --config ui.clonebundles=false https://localhost:8443/team/app" in text
    hrefs = [link.get("href") for link in page.iter("a")]
    assert {CDN.url, WEST.url, "/team/app/", "/-/bundles.json"} <= set(hrefs)
    assert '<a href="/-/bundles/">' in web.get("/").text, "the list of repositories leads there"


def _as_xml(document: str) -> str:
    """Close what HTML leaves open, so that a strict parser finds every tag that we forgot."""
    return re.sub(r"<(meta|link|br)([^>]*)>", r"<\1\2/>", document.partition("\n")[2])


def test_a_page_without_any_bundles_still_tells_how(web: WebClient) -> None:
    text = web.get("/-/bundles").text
    assert "No repository has clone bundles at the moment" in text
    assert re.search(r"clonebundles=false https://localhost:8443/REPOSITORY<", text)


def test_what_an_entry_says_is_escaped(host: MirrorHost, web: WebClient, exposures: Exposures) -> None:
    nasty = entry('https://cdn.example/"><script>', BundleType.OTHER, {"datacenter": "<b>&amp;"})
    offer(host, exposures, "app", nasty)
    text = web.get("/-/bundles/").text
    assert "<script>" not in text
    assert "<b>" not in text
    assert "datacenter=&lt;b&gt;&amp;amp;" in text


def test_a_mirror_that_is_not_in_service_tells_nothing(host: MirrorHost, web: WebClient) -> None:
    host.serve(Stage.JOINING)
    assert web.get("/-/bundles.json").status == 502
