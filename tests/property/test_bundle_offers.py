"""Whatever a manifest is made of, Mercurial reads it back; of networks the longest counts."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from hgfleet.errors import RejectedError
from hgfleet.model.bundle_manifest import (
    ANYWHERE,
    BundleType,
    ManifestEntry,
    Place,
    check_entry,
    format_manifest,
)
from hgfleet.model.ids import Digest
from hgfleet.model.locations import LocationTable
from tests.support.bundle_manifests import read_manifest

URL = "https://cdn.example.org/zstd.hg"
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,9}", fullmatch=True)


@given(st.dictionaries(NAMES, st.text(max_size=20)))
def test_whatever_is_accepted_as_an_attribute_is_read_back_as_it_was(attributes: dict[str, str]) -> None:
    line = ManifestEntry(URL, BundleType.ZSTD, "zstd-v2", 10, Digest("ab" * 32), "cdn", attributes)
    try:
        check_entry(line)
    except RejectedError:
        return
    [fields] = read_manifest(format_manifest([line]))
    assert {name.encode(): text.encode() for name, text in attributes.items()}.items() <= fields.items()


networks = st.builds(
    lambda number, length: ipaddress.IPv4Network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
)


@given(st.lists(networks, max_size=12), st.integers(0, 2**32 - 1))
def test_a_look_up_agrees_with_a_search_through_all_networks(
    listed: list[ipaddress.IPv4Network], number: int
) -> None:
    places = [(network, Place("n", str(network))) for network in listed]
    address = ipaddress.IPv4Address(number)
    fitting = [network for network in listed if address in network]
    longest = max(fitting, key=lambda network: network.prefixlen, default=None)
    expected = ANYWHERE if longest is None else Place("n", str(longest))
    assert LocationTable(places).find(str(address)) == expected
