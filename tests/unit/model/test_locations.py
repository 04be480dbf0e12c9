"""The location of an address: the longest network counts, region names are whole, both IP versions alike."""

import pytest

from hgfleet.errors import ConfigError
from hgfleet.model.bundle_manifest import ANYWHERE, Place
from hgfleet.model.locations import LocationTable, aws_networks, google_networks, listed_networks

AMS, FRA = Place("datacenter", "ams"), Place("datacenter", "fra")
AWS = {
    "syncToken": "1",
    "prefixes": [
        {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "AMAZON"},
        {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "EC2"},
        {"ip_prefix": "52.94.0.0/16", "region": "us-west-2", "service": "EC2"},
    ],
    "ipv6_prefixes": [{"ipv6_prefix": "2600:1f14::/35", "region": "us-west-2", "service": "EC2"}],
}
GOOGLE = {
    "prefixes": [
        {"ipv4Prefix": "34.1.208.0/20", "service": "Google Cloud", "scope": "africa-south1"},
        {"ipv6Prefix": "2600:1900:8000::/44", "service": "Google Cloud", "scope": "us-east10"},
    ]
}


def test_the_longest_network_counts() -> None:
    table = LocationTable([*listed_networks(["10.0.0.0/8"], AMS), *listed_networks(["10.1.0.0/16"], FRA)])
    assert [table.find(address) for address in ("10.0.0.1", "10.1.2.3", "11.0.0.1")] == [AMS, FRA, ANYWHERE]


def test_of_equal_networks_the_first_counts() -> None:
    table = LocationTable([*listed_networks(["10.0.0.0/8"], AMS), *listed_networks(["10.0.0.0/8"], FRA)])
    assert table.find("10.0.0.1") == AMS


@pytest.mark.parametrize("address", ["", "localhost", "10.0.0", "10.0.0.256", "::g", "10.0.0.1, 10.0.0.2"])
def test_what_is_no_address_is_anywhere(address: str) -> None:
    assert LocationTable(listed_networks(["0.0.0.0/0", "::/0"], AMS)).find(address) == ANYWHERE


def test_an_ipv4_address_in_ipv6_clothes_is_the_same_client() -> None:
    assert LocationTable(listed_networks(["10.0.0.0/8"], AMS)).find("::ffff:10.1.2.3") == AMS


def test_a_network_of_one_ip_version_says_nothing_about_the_other() -> None:
    assert LocationTable(listed_networks(["::/0"], AMS)).find("10.0.0.1") == ANYWHERE


def test_aws_publishes_regions_of_clients_in_both_ip_versions() -> None:
    table = LocationTable(aws_networks(AWS, "ec2region"))
    assert table.find("52.94.1.1") == Place("ec2region", "us-west-2")
    assert table.find("2600:1f14::1") == Place("ec2region", "us-west-2")
    assert table.find("3.5.141.7") == Place("ec2region", "ap-northeast-2")


def test_google_publishes_regions_in_both_ip_versions() -> None:
    table = LocationTable(google_networks(GOOGLE, "gceregion"))
    assert table.find("34.1.209.1") == Place("gceregion", "africa-south1")
    assert table.find("2600:1900:8000::1") == Place("gceregion", "us-east10")


@pytest.mark.parametrize(
    "document", [None, [], {}, {"prefixes": 1, "ipv6_prefixes": []}, {"prefixes": [1], "ipv6_prefixes": []}]
)
def test_what_is_not_a_providers_file_is_refused(document: object) -> None:
    with pytest.raises(ConfigError, match="not a provider's file"):
        aws_networks(document, "ec2region")


@pytest.mark.parametrize(
    "row", [{"scope": "x"}, {"ipv4Prefix": "10.0.0.1/8", "scope": "x"}, {"ipv4Prefix": "10.0.0.0/8"}]
)
def test_a_damaged_row_is_refused(row: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="not a provider's file"):
        google_networks({"prefixes": [row]}, "gceregion")
