"""The systemd units of a host: accepted by systemd itself, and closed to what a service does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.systemd_units import UnitOptions, render_unit
from hgfleet.cli.fleet import Fleet, Place
from hgfleet.cli.units import unit_texts
from hgfleet.config.load import parse_config
from hgfleet.errors import ConfigError

CONFIG = Path("/etc/hgfleet/hgfleet.toml")
MAX_EXPOSURE = 2.0  # of 10; systemd calls this "OK", a service without any hardening has 9.6
HOSTS = [
    {"name": "hg1", "address": "127.0.0.11", "roles": ["primary", "coordinator"], "ssh_port": 22},
    {"name": "hg3", "address": "127.0.0.13", "roles": ["mirror", "coordinator"]},
]
SITE = {
    "url": "https://hg.example.org",
    "run_directory": "/run/hgfleet",
    "hosts_directory": "/var/lib/hgfleet/hosts",
}


def texts(host: str, **site: Any) -> dict[str, str]:
    tables = {"site": SITE | site, "hosts": HOSTS, "logs": {"path": "/var/log/hgfleet"}}
    place = Place(CONFIG, CONFIG.parent, host)
    return unit_texts(Fleet(place, parse_config(tables, CONFIG)).layout, place, "hgfleet")


def options(**changes: Any) -> UnitOptions:
    fields: dict[str, Any] = {
        "role": "mirror",
        "host": "hg3",
        "site": "hgfleet",
        "program": Path("/opt/hgfleet/bin/hgfleet"),
        "config": CONFIG,
        "user": "hgfleet",
        "writable": [Path("/srv/hg")],
    }
    return UnitOptions(**(fields | changes))


def lines(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


def test_a_host_has_one_unit_per_role_and_a_mirror_one_for_its_web_workers() -> None:
    assert list(texts("hg1")) == ["hgfleet-primary.service", "hgfleet-coordinator.service"]
    assert list(texts("hg3")) == [
        "hgfleet-mirror.service",
        "hgfleet-web.service",
        "hgfleet-coordinator.service",
    ]


def test_systemd_accepts_every_unit_and_finds_it_well_closed(tmp_path: Path) -> None:
    rendered = {name: text for host in ("hg1", "hg3") for name, text in texts(host).items()}
    for name, text in rendered.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in rendered]

    verified = analyze("verify", "--man=no", *files)
    ours = [line for line in verified.stderr.splitlines() if "hgfleet" in line]
    assert ours == []
    for file in files:
        judged = analyze(
            "security", "--offline=yes", "--no-pager", f"--threshold={MAX_EXPOSURE * 10:.0f}", file
        )
        assert judged.returncode == 0, judged.stdout


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_only_a_role_that_listens_below_1024_may_do_so() -> None:
    assert lines(texts("hg1")["hgfleet-primary.service"], "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert lines(texts("hg1")["hgfleet-coordinator.service"], "AmbientCapabilities") == [""]


def test_only_directories_of_the_fleet_can_be_written() -> None:
    text = texts("hg3")["hgfleet-mirror.service"]

    assert lines(text, "RuntimeDirectory") == ["hgfleet"]
    assert lines(text, "StateDirectory") == ["hgfleet/hosts"]
    assert lines(text, "LogsDirectory") == ["hgfleet"]
    assert lines(text, "ReadWritePaths") == ["/etc/hgfleet/blobs", "/etc/hgfleet/log"]


def test_the_command_names_file_and_host_and_runs_our_own_program() -> None:
    [command] = lines(texts("hg3")["hgfleet-web.service"], "ExecStart")

    program = Path(sys.executable).with_name("hgfleet")
    assert command == f"{program} run web --config {CONFIG} --host hg3"


def test_homes_can_be_read_only_where_something_of_the_fleet_lies_there() -> None:
    assert lines(render_unit(options()), "ProtectHome") == ["yes"]
    assert lines(render_unit(options(program=Path("/home/hg/bin/hgfleet"))), "ProtectHome") == ["read-only"]


def test_what_a_unit_cannot_carry_is_refused_and_specifiers_are_escaped() -> None:
    with pytest.raises(ConfigError, match="cannot carry"):
        render_unit(options(user="hg fleet"))
    assert lines(render_unit(options(site="100%")), "Description") == ["100%%: mirror on hg3"]


def test_sockets_that_would_not_fit_are_refused_before_a_unit_is_written() -> None:
    with pytest.raises(ConfigError, match="too long for sockets"):
        texts("hg3", run_directory="/run/" + "x" * 100)
