"""Clone bundle manifests: Mercurial reads back what was written, in the order that each place should get."""

from dataclasses import replace

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.bundle_manifest import (
    ANYWHERE,
    BundleType,
    ManifestEntry,
    Place,
    agent_reads_stream_v2,
    arrange,
    entries_for,
    format_manifest,
    parse_entries,
    types_without_fallback,
)
from hgfleet.model.ids import Digest
from tests.support.bundle_manifests import read_manifest

SPEC_BY_TYPE = {
    BundleType.ZSTD_MAX: "zstd-v2",
    BundleType.ZSTD: "zstd-v2",
    BundleType.GZIP_V2: "gzip-v2",
    BundleType.GZIP_V1: "gzip-v1",
    BundleType.PACKED1: "none-packed1;requirements=generaldelta,revlogv1",
    BundleType.STREAM_V2: "none-v2;stream=v2;requirements=generaldelta,revlogv1",
}
WEST, EAST, EAST10 = (Place("ec2region", name) for name in ("us-west-2", "us-east1", "us-east10"))


def entry(kind: BundleType, store: str = "cdn", **attributes: str) -> ManifestEntry:
    url = f"https://{store}.example.org/{kind.value}.hg"
    return ManifestEntry(url, kind, SPEC_BY_TYPE[kind], 10, Digest("ab" * 32), store, attributes)


def on_cdn(kind: BundleType) -> ManifestEntry:
    return entry(kind, "cdn", cdn="true", REQUIRESNI="true")


def in_west(kind: BundleType) -> ManifestEntry:
    return entry(kind, "west", ec2region="us-west-2")


def urls(entries: tuple[ManifestEntry, ...]) -> list[str]:
    return [e.url.removeprefix("https://").replace(".example.org", "") for e in entries]


# ---- text


def test_mercurial_reads_the_url_the_spec_the_digest_and_the_sites_attributes() -> None:
    line = in_west(BundleType.PACKED1)
    [attributes] = read_manifest(format_manifest([line]))
    assert attributes[b"URL"] == line.url.encode()
    assert attributes[b"BUNDLESPEC"] == line.spec.encode()
    assert attributes[b"DIGEST"] == b"sha256:" + b"ab" * 32
    assert attributes[b"ec2region"] == b"us-west-2"


def test_an_entry_of_unknown_bytes_carries_no_digest() -> None:
    [attributes] = read_manifest(format_manifest([replace(in_west(BundleType.ZSTD), sha256=Digest(""))]))
    assert b"DIGEST" not in attributes


# ---- order


def test_types_come_in_the_documented_order_each_with_its_cdn_first() -> None:
    shuffled = [in_west(BundleType.STREAM_V2), in_west(BundleType.ZSTD), on_cdn(BundleType.GZIP_V1)]
    shuffled += [on_cdn(BundleType.ZSTD), in_west(BundleType.GZIP_V1), on_cdn(BundleType.ZSTD_MAX)]
    assert urls(arrange(shuffled, ["west", "cdn"])) == [
        "cdn/zstd-max.hg",
        "cdn/zstd.hg",
        "west/zstd.hg",
        "cdn/gzip-v1.hg",
        "west/gzip-v1.hg",
        "west/stream-v2.hg",
    ]


def test_stores_come_as_they_are_configured_and_what_a_person_added_comes_first() -> None:
    by_hand = replace(entry(BundleType.ZSTD, "mine"), store="")
    entries = [
        entry(BundleType.ZSTD, "b"),
        by_hand,
        entry(BundleType.ZSTD, "a"),
        entry(BundleType.ZSTD, "old"),
    ]
    assert urls(arrange(entries, ["b", "a"])) == ["mine/zstd.hg", "b/zstd.hg", "a/zstd.hg", "old/zstd.hg"]


def test_a_type_that_is_only_at_urls_with_sni_is_named() -> None:
    entries = [on_cdn(BundleType.ZSTD), on_cdn(BundleType.GZIP_V2), in_west(BundleType.GZIP_V2)]
    assert types_without_fallback(entries) == {BundleType.ZSTD}


# ---- places


LISTED = arrange(
    [on_cdn(t) for t in (BundleType.ZSTD, BundleType.GZIP_V2, BundleType.GZIP_V1)]
    + [in_west(t) for t in (BundleType.ZSTD, BundleType.GZIP_V2, BundleType.PACKED1)],
    ["west", "cdn"],
)


def test_a_client_in_a_region_gets_that_regions_entries_streaming_first_and_a_cdns_other_types_last() -> None:
    assert urls(entries_for(LISTED, WEST)) == [
        "west/packed1.hg",
        "west/zstd.hg",
        "west/gzip-v2.hg",
        "cdn/gzip-v1.hg",
    ]


def test_a_client_in_a_region_without_bundles_gets_all() -> None:
    assert entries_for(LISTED, Place("gceregion", "us-west1")) == LISTED


def test_a_client_in_a_fast_network_gets_all_streaming_first() -> None:
    assert urls(entries_for(LISTED, Place(is_fast=True)))[:2] == ["west/packed1.hg", "cdn/zstd.hg"]
    assert sorted(urls(entries_for(LISTED, Place(is_fast=True)))) == sorted(urls(LISTED))


STREAMED = arrange(
    [in_west(t) for t in (BundleType.STREAM_V2, BundleType.PACKED1, BundleType.ZSTD)]
    + [on_cdn(t) for t in (BundleType.STREAM_V2, BundleType.GZIP_V2)],
    ["west", "cdn"],
)


@pytest.mark.parametrize(
    ("place", "reads_stream_v2", "expected"),
    [
        (WEST, True, ["west/packed1.hg", "west/stream-v2.hg", "west/zstd.hg", "cdn/gzip-v2.hg"]),
        (WEST, None, ["west/packed1.hg", "west/zstd.hg", "west/stream-v2.hg", "cdn/gzip-v2.hg"]),
        (WEST, False, ["west/packed1.hg", "west/zstd.hg", "cdn/gzip-v2.hg"]),
        (EAST, None, urls(STREAMED)),
        (EAST, False, [url for url in urls(STREAMED) if "stream-v2" not in url]),
        (Place(is_fast=True), None, ["west/packed1.hg", *(u for u in urls(STREAMED) if "packed1" not in u)]),
    ],
)
def test_a_client_that_may_choke_on_stream_v2_is_never_told_to_try_it_first(
    place: Place, reads_stream_v2: bool | None, expected: list[str]
) -> None:
    assert urls(entries_for(STREAMED, place, reads_stream_v2)) == expected


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("mercurial/proto-1.0 (Mercurial 4.9.1)", False),
        ("mercurial/proto-1.0 (Mercurial 5.0)", True),
        ("mercurial/proto-1.0 (Mercurial 7.2.4+hg12.abc)", True),
        ("mercurial/proto-1.0 (Mercurial 10.1)", True),
        ("mercurial/proto-1.0 (Mercurial unknown)", None),
        ("mercurial/proto-1.0", False),
        ("curl/8.0", None),
        ("", None),
    ],
)
def test_a_client_says_by_its_name_whether_it_knows_stream_v2(agent: str, expected: bool | None) -> None:
    assert agent_reads_stream_v2(agent) is expected


def test_a_region_is_not_one_whose_name_begins_alike() -> None:
    entries = (entry(BundleType.ZSTD, "east", ec2region="us-east1"), on_cdn(BundleType.ZSTD))
    assert urls(entries_for(entries, EAST)) == ["east/zstd.hg"]
    assert entries_for(entries, EAST10) == entries


def test_places_are_told_apart_by_their_keys() -> None:
    places = [ANYWHERE, WEST, EAST, EAST10, Place(is_fast=True), Place("ec2region", "us-east1", is_fast=True)]
    assert len({place.key for place in places}) == len(places)


# ---- messages


def test_entries_are_read_back_from_a_message() -> None:
    assert parse_entries([line.to_json() for line in LISTED]) == LISTED


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "file:///etc/passwd"},
        {"url": "https://x/a b"},
        {"url": "https://x/a\nhttps://y/b"},
        {"url": 1},
        {"spec": ""},
        {"spec": "zstd-v2\nhttps://y/b"},
        {"type": "unheard-of"},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"sha256": "short"},
        {"attributes": {"DIGEST": "sha256:0"}},
        {"attributes": {"a b": "c"}},
        {"attributes": {"a": "b\n"}},
        {"attributes": {"a": 1}},
        {"attributes": []},
        {"store": None},
    ],
    ids=str,
)
def test_a_damaged_entry_is_poison(changes: dict[str, object]) -> None:
    with pytest.raises(PoisonError, match="damaged bundle manifest"):
        parse_entries([LISTED[0].to_json() | changes])


@pytest.mark.parametrize("values", [None, {}, [1], ["x"], [{}] * 1001])
def test_what_is_no_list_of_entries_is_poison(values: object) -> None:
    with pytest.raises(PoisonError, match="damaged bundle manifest"):
        parse_entries(values)
