"""Which code a part of the fleet loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOADS = """
import sys
from pathlib import Path
import hgfleet.cli.main, hgfleet.cli.process
from hgfleet.cli import parts
from hgfleet.config.layout import FleetLayout
from hgfleet.config.load import parse_config
layout = FleetLayout(parse_config({}, Path("/nowhere/hgfleet.toml")))
parts.open_blobs(layout.config), parts.open_directory(layout)
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


@pytest.mark.parametrize("vendor", ["boto3", "botocore", "ldap3", "pyasn1"])
def test_the_clients_of_services_that_are_not_used_are_not_loaded(vendor: str) -> None:
    command = [sys.executable, "-c", _LOADS, vendor]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
