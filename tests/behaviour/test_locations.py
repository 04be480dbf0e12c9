"""Where a client is decides what it is told, through a real HAProxy and real web workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hgfleet.adapters.bundle_offers import OfferedManifest
from hgfleet.adapters.haproxy_config import Mirror
from hgfleet.adapters.location_files import LocationOptions
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry, arrange
from hgfleet.model.ids import Digest, Seq
from tests.support.clients import CURRENT_HG, HgClient
from tests.support.exposures import build
from tests.support.load_balancer import LoadBalancer, load_balancer, make_certificate
from tests.support.mirror_host import MirrorHost
from tests.support.web_process import WebProcess

STEPS = ("first changesets",)
MANIFEST = "/app?cmd=clonebundles"
PROXY, STRANGER = "127.0.0.1", "127.0.9.9"
IN_WEST, IN_EAST, IN_AMS, IN_FAST, ELSEWHERE = "127.0.1.1", "127.0.2.2", "127.0.3.3", "127.0.4.4", "127.0.5.5"


def write_ranges(path: Path, region: str) -> None:
    """Write what AWS publishes: 127.0.1.0/24 and 2600:1f14::/35 lie in a region, 127.0.2.0/24 in the east."""
    rows = [("127.0.1.0/24", region), ("127.0.2.0/24", "us-east-1")]
    document = {
        "prefixes": [{"ip_prefix": row[0], "region": row[1], "service": "EC2"} for row in rows],
        "ipv6_prefixes": [{"ipv6_prefix": "2600:1f14::/35", "region": region, "service": "EC2"}],
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.rename(path)


def entry(kind: BundleType, store: str, **attributes: str) -> ManifestEntry:
    url = f"https://{store}.example/{kind.value}.hg"
    return ManifestEntry(url, kind, kind.value, 1, Digest("ab" * 32), store, attributes)


ENTRIES = arrange(
    [entry(kind, "cdn", cdn="true") for kind in (BundleType.ZSTD, BundleType.GZIP_V1)]
    + [entry(kind, "west", ec2region="us-west-2") for kind in (BundleType.ZSTD, BundleType.PACKED1)]
    + [entry(BundleType.ZSTD, "ams", datacenter="ams")],
    ["cdn", "west", "ams"],
)
ALL = ["cdn/zstd", "west/zstd", "ams/zstd", "cdn/gzip-v1", "west/packed1"]
OF_WEST = ["west/packed1", "west/zstd", "cdn/gzip-v1"]
OF_AMS = ["ams/zstd", "cdn/gzip-v1"]
OF_FAST = ["west/packed1", "cdn/zstd", "west/zstd", "ams/zstd", "cdn/gzip-v1"]


@dataclass
class Site:
    """One mirror behind HAProxy."""

    ranges: Path
    web: WebProcess
    balancer: LoadBalancer

    def told(self, source: str, headers: dict[str, str] | None = None) -> list[str]:
        """Return what a client at an address is told through HAProxy."""
        return _names(self.balancer.ask(MANIFEST, headers=headers, source=source).text)

    def told_directly(self, source: str, headers: dict[str, str]) -> list[str]:
        """Return what the mirror answers to a peer that may be no proxy of ours."""
        context = ssl.create_default_context(cafile=str(self.web.ca_file))
        connection = http.client.HTTPSConnection(
            "localhost", self.web.port, context=context, timeout=30, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            connection.request("GET", MANIFEST, headers=headers)
            return _names(connection.getresponse().read().decode())

    def events(self) -> list[str]:
        """Return what was logged about providers' files."""
        return [e["event"] for e in self.web.lines() if str(e.get("event", "")).startswith("locations.")]


def _names(text: str) -> list[str]:
    urls = [line.split()[0] for line in text.splitlines()]
    return [url.removeprefix("https://").removesuffix(".hg").replace(".example", "") for url in urls]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("locations")
    exposures = build(directory / "exposures", HgClient(CURRENT_HG, directory), STEPS)
    host = MirrorHost(directory / "host")
    repository = host.add("app", exposures.full, Seq(1))
    host.offer(repository, OfferedManifest(Seq(1), ENTRIES))
    ranges = directory / "ip-ranges.json"
    write_ranges(ranges, "us-west-2")
    options = LocationOptions(
        places=(("127.0.3.0/24", "datacenter", "ams"),),
        files=((str(ranges), "aws", "ec2region"),),
        fast_networks=("127.0.4.0/24",),
        interval_seconds=0,
    )
    trusting = replace(host.site(), locations=options, trusted_proxies=(f"{PROXY}/32",))
    web = WebProcess(directory / "web", trusting, workers=1)
    certificate = make_certificate(directory)
    mirror = Mirror("mirror1", "127.0.0.1", web.port)
    try:
        with load_balancer((mirror,), certificate, directory, mirrors_ca_file=web.ca_file) as balancer:
            balancer.wait(lambda: balancer.ask("/-/readyz").status == 200, "the mirror is in service")
            yield Site(ranges, web, balancer)
    finally:
        web.stop()


@pytest.mark.parametrize(
    ("source", "expected"),
    [(IN_WEST, OF_WEST), (IN_EAST, ALL), (IN_AMS, OF_AMS), (IN_FAST, OF_FAST), (ELSEWHERE, ALL)],
    ids=["west", "a region without bundles", "a listed network", "a fast network", "elsewhere"],
)
def test_a_client_is_told_what_fits_its_address(site: Site, source: str, expected: list[str]) -> None:
    assert site.told(source) == expected


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "True-Client-IP"])
def test_a_client_cannot_say_that_it_is_elsewhere(site: Site, name: str) -> None:
    forged = {name: f"for={IN_WEST}" if name == "Forwarded" else IN_WEST}
    assert site.told(ELSEWHERE, forged) == ALL
    assert site.told_directly(STRANGER, forged) == ALL


def test_of_a_trusted_proxy_the_last_address_that_is_none_is_believed(site: Site) -> None:
    assert site.told_directly(PROXY, {"X-Forwarded-For": IN_WEST}) == OF_WEST
    assert site.told_directly(PROXY, {"X-Forwarded-For": f"{IN_AMS}, {IN_WEST}, {PROXY}"}) == OF_WEST
    assert site.told_directly(PROXY, {"X-Forwarded-For": "2600:1f14::1"}) == OF_WEST


@pytest.mark.parametrize("address", ["unknown", "127.0.1", "127.0.1.1:80x", "", "::ffff:127.0.1.999"])
def test_an_address_that_is_none_gets_the_whole_list(site: Site, address: str) -> None:
    assert site.told_directly(PROXY, {"X-Forwarded-For": address}) == ALL


def test_an_answer_is_for_this_client_alone(site: Site) -> None:
    headers = site.balancer.ask(MANIFEST, source=IN_WEST).headers
    assert headers["Cache-Control"] == "private"


def test_a_changed_file_counts_without_a_restart_and_a_damaged_one_changes_nothing(site: Site) -> None:
    before = len(site.events())
    try:
        write_ranges(site.ranges, "us-west-20")
        assert site.told(IN_WEST) == ALL, "names are compared whole"
        site.ranges.write_text('{"prefixes": [')
        assert site.told(IN_WEST) == ALL
    finally:
        write_ranges(site.ranges, "us-west-2")
    assert site.told(IN_WEST) == OF_WEST
    assert site.events()[before:] == ["locations.read", "locations.damaged", "locations.read"]
