"""[[locations]]: what is refused, what reads back the same, and what its readers are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.location_files import LocationOptions
from hgfleet.cli.parts import location_options
from hgfleet.config.load import load_config, parse_config
from hgfleet.config.render import render_config
from hgfleet.errors import ConfigError

AMS = {"attribute": "datacenter=ams", "networks": ["198.51.100.0/24", "2001:db8::/32"]}
AWS = {"attribute": "ec2region", "provider": "aws", "file": "/var/lib/ip-ranges.json"}
PATH = Path("/etc/hgfleet/hgfleet.toml")


def test_readers_are_told_of_networks_files_and_fast_networks() -> None:
    bundles = {"fast_networks": ["10.0.0.0/8"], "locations_interval": "5s"}
    config = parse_config({"locations": [AMS, AWS], "bundles": bundles}, PATH)
    assert location_options(config) == LocationOptions(
        places=(("198.51.100.0/24", "datacenter", "ams"), ("2001:db8::/32", "datacenter", "ams")),
        files=(("/var/lib/ip-ranges.json", "aws", "ec2region"),),
        fast_networks=("10.0.0.0/8",),
        interval_seconds=5.0,
    )


def test_what_is_written_reads_back_the_same_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "hgfleet.toml"
    path.write_text(
        '[[locations]]\nattribute = "gceregion"\nprovider = "google"\nfile = "cloud.json"\n'
        '[[locations]]\nattribute = "datacenter=ams"\nnetworks = ["10.0.0.0/8"]\n'
    )
    elsewhere = tmp_path / "run" / "effective.toml"
    elsewhere.parent.mkdir()
    config = load_config(path)
    elsewhere.write_text(render_config(config))
    assert load_config(elsewhere) == config
    assert location_options(config).files == ((str(tmp_path / "cloud.json"), "google", "gceregion"),)


@pytest.mark.parametrize(
    ("locations", "problem"),
    [
        ("here", "locations: expected an array of tables, written [[locations]]"),
        ([3], "locations[0]: expected a table"),
        ([AMS, AMS | {"networks": ["10.0.0.1/8"]}], "locations[1].networks"),
        ([AMS | {"networks": []}], "locations[0].networks: is needed"),
        ([AMS | {"attribute": "datacenter"}], "locations[0].attribute: expected one with a value"),
        ([AMS | {"attribute": "REQUIRESNI=true"}], "locations[0].attribute: expected a lower-case one"),
        ([AMS | {"attribute": "da ta=x"}], "locations[0].attribute: not a name"),
        ([AMS | {"netwoks": []}], "locations[0].netwoks: unknown; did you mean networks?"),
        ([AWS | {"attribute": "ec2region=x"}], "locations[0].attribute: expected its name alone"),
        ([AWS | {"file": ""}], "locations[0].file: is needed"),
        ([AWS | {"provider": ""}], "locations[0].provider: is needed"),
        ([AWS | {"provider": "azure"}], "locations[0].provider"),
        ([AWS | {"networks": ["10.0.0.0/8"]}], "locations[0].networks: a location has networks or"),
    ],
)
def test_a_wrong_setting_is_named(locations: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"locations": locations}, PATH)
    [found] = caught.value.hint.splitlines()
    assert problem in found
