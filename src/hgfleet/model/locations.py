"""Where a client is: the location of an address by the longest network that contains it.

A location is an attribute of bundle entries (`ec2region=us-west-2`, `datacenter=ams`) and the networks in
which its clients are: listed ones, or those of a provider's published file. Names are compared whole.

Promises: pure; a look-up costs one dictionary access per prefix length in use, however many networks there
are; an address that is none is anywhere.
Does not: read files, or know which of a request's addresses to believe (web.requests).
Formats: ip-ranges.json of AWS (`prefixes[].ip_prefix`, `ipv6_prefixes[].ipv6_prefix`, `.region`, `.service`),
cloud.json of Google (`prefixes[].ipv4Prefix` or `.ipv6Prefix`, `.scope`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hgfleet.errors import ConfigError
from hgfleet.model.bundle_manifest import ANYWHERE, Place

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Table = dict[int, dict[int, Place]]  # by prefix length, then by the network's address as a number


class LocationTable:
    """Networks and what lies in them; of equal networks the first one counts."""

    def __init__(self, places: Iterable[tuple[Network, Place]]) -> None:
        self._table_by_version: dict[int, _Table] = {4: {}, 6: {}}
        for network, place in places:
            table = self._table_by_version[network.version]
            table.setdefault(network.prefixlen, {}).setdefault(int(network.network_address), place)
        self._lengths_by_version = {
            version: sorted(table, reverse=True) for version, table in self._table_by_version.items()
        }

    def find(self, address: str) -> Place:
        """Return the place of an address; ANYWHERE for one that no network contains, or that is none."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return ANYWHERE
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return self._longest_match(parsed.version, parsed.max_prefixlen, int(parsed))

    def _longest_match(self, version: int, width: int, number: int) -> Place:
        table = self._table_by_version[version]
        for length in self._lengths_by_version[version]:
            place = table[length].get(number >> (width - length) << (width - length))
            if place is not None:
                return place
        return ANYWHERE


def listed_networks(networks: Iterable[str], place: Place) -> Iterator[tuple[Network, Place]]:
    """Yield networks that are written in the configuration, which has checked them."""
    return ((ipaddress.ip_network(network), place) for network in networks)


def aws_networks(document: Any, attribute: str) -> list[tuple[Network, Place]]:
    """Read AWS's file; of its services, EC2 is where clients run. Raises ConfigError `locations.damaged`."""
    rows = [*_rows(document, "prefixes", "AWS"), *_rows(document, "ipv6_prefixes", "AWS")]
    of_clients = [row for row in rows if row.get("service") == "EC2"]
    return [_parse(row, ("ip_prefix", "ipv6_prefix"), "region", attribute, "AWS") for row in of_clients]


def google_networks(document: Any, attribute: str) -> list[tuple[Network, Place]]:
    """Read Google's file. Raises ConfigError `locations.damaged`."""
    rows = _rows(document, "prefixes", "Google")
    return [_parse(row, ("ipv4Prefix", "ipv6Prefix"), "scope", attribute, "Google") for row in rows]


def _rows(document: Any, name: str, provider: str) -> list[Mapping[str, Any]]:
    rows = document.get(name) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _damaged(provider, f"it has no list {name!r}")
    return rows


def _parse(
    row: Mapping[str, Any], networks: tuple[str, str], region: str, attribute: str, provider: str
) -> tuple[Network, Place]:
    texts = [row[name] for name in networks if isinstance(row.get(name), str)]
    if len(texts) != 1 or not isinstance(row.get(region), str):
        raise _damaged(provider, "a row names no network, or no region")
    try:
        return ipaddress.ip_network(texts[0]), Place(attribute, row[region])
    except ValueError as error:
        raise _damaged(provider, str(error)) from error


def _damaged(provider: str, reason: str) -> ConfigError:
    return ConfigError(
        "locations.damaged",
        "not a provider's file of address ranges",
        hint="fetch it again from the provider",
        provider=provider,
        reason=reason,
    )
