"""The commands that `hgfleet up` prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters.endpoints import Endpoints, SshEndpoint
from hgfleet.cli.up_text import describe_fleet
from hgfleet.config.load import parse_config

ENDPOINTS = Endpoints(
    ssh=SshEndpoint("localhost", 2222, "/f/known_hosts"),
    http="http://localhost:8080",
    https="https://localhost:8443",
    admin="http://localhost:8090",
    mirrors=(),
    ca_file="/f/ca.pem",
    account="example",
    key_file="/f/id",
)


@pytest.mark.parametrize(
    ("taken", "name"),
    [(set(), "demo"), ({"demo"}, "demo2"), ({"demo", "demo2", "x"}, "demo3"), ({"demo2"}, "demo")],
)
def test_the_example_creates_a_repository_that_is_not_there_yet(taken: set[str], name: str) -> None:
    text = describe_fleet(parse_config({}, Path("/f/hgfleet.toml")), ENDPOINTS, Path("/f"), taken)

    assert f"hgfleet repo create {name} --dir /f\n" in text
    assert f"ssh://example@localhost:2222/{name}\n" in text


def test_where_accounts_are_managed_elsewhere_nothing_is_pushed_as_somebody() -> None:
    endpoints = replace(ENDPOINTS, account="", key_file="")
    text = describe_fleet(parse_config({}, Path("/f/hgfleet.toml")), endpoints, Path("/f"))
    assert "ssh://ACCOUNT@localhost:2222/\n" in text
    assert "hgfleet repo create demo" in text
    assert "hg -R" not in text
