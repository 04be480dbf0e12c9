"""The tables of the array `[[locations]]`: where clients are, told from their addresses.

Promises: what a table says can be used; a file that it names may still be missing or damaged.
Does not: read providers' files (adapters.location_files).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from hgfleet.config.section import Networks, Section, setting
from hgfleet.config.units import OptionalFilePath
from hgfleet.errors import RejectedError
from hgfleet.model.bundle_manifest import check_attributes


class LocationSection(Section):
    """Where clients are: listed networks, or a provider's file. They are told of the bundles there."""

    attribute: str = setting(
        "",
        'what bundles that lie there have: "ec2region=us-west-2", "datacenter=ams"; '
        'with a provider\'s file only its name, such as "ec2region"',
    )
    networks: Networks = setting([], 'of the clients there: ["198.51.100.0/24", "2001:db8::/32"]')
    provider: Literal["", "aws", "google"] = setting(
        "", "whose file of address ranges it is: aws (ip-ranges.json) or google (cloud.json)"
    )
    file: OptionalFilePath = setting(
        "", "the provider's file; it is read again when it changes, and a damaged one changes nothing"
    )


def find_location_conflicts(locations: Sequence[LocationSection]) -> Iterator[str]:
    """Yield what is wrong with a table."""
    for place, location in enumerate(locations):
        yield from (f"locations[{place}].{problem}" for problem in _find_conflicts(location))


def _find_conflicts(location: LocationSection) -> Iterator[str]:
    name, sign, value = location.attribute.partition("=")
    yield from _find_bad_attribute(name, value)
    if location.provider or location.file:
        yield from _find_bad_file(location, has_value=bool(sign))
    elif not location.networks:
        yield "networks: is needed where there is no provider's file"
    elif not value:
        yield 'attribute: expected one with a value, such as "datacenter=ams"'


def _find_bad_attribute(name: str, value: str) -> Iterator[str]:
    if not name or not name.islower():
        yield 'attribute: expected a lower-case one, such as "datacenter=ams"'
        return
    try:
        check_attributes({name: value})
    except RejectedError as error:
        yield f"attribute: {error.message}"


def _find_bad_file(location: LocationSection, *, has_value: bool) -> Iterator[str]:
    if location.networks:
        yield "networks: a location has networks or a provider's file, not both"
    if not location.provider:
        yield "provider: is needed with a file"
    if location.file is None:
        yield "file: is needed with a provider"
    if has_value:
        yield "attribute: expected its name alone, for a provider's file says the values"
