"""The hgrc of the session server, read back by Mercurial itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters.hgrc_render import HgrcOptions, render_hgrc, without_mercurial_settings
from hgfleet.errors import ConfigError

OPTIONS = HgrcOptions(
    host="primary",
    agent_socket=Path("/run/fleet/agent sock"),
    spool_directory=Path("/srv/spool"),
    site_url="https://localhost:8443",
    ssh_url="ssh://localhost:2222",
    inline_limit_bytes=262144,
    append_deadline_seconds=10.0,
    visible_wait_seconds=2.5,
    lock_timeout_seconds=30.0,
    allow_faults=False,
)
READ = """
import sys
from mercurial import ui as uimod
ui = uimod.ui.load()
for section, name, value in ui.walkconfig():
    print((b"%s.%s=%s" % (section, name, value)).decode())
"""


def read_back(text: str, directory: Path) -> dict[str, str]:
    path = directory / "hgrc"
    path.write_text(text)
    env = {"HGRCPATH": str(path), "HGPLAIN": "1"}
    done = subprocess.run([sys.executable, "-c", READ], env=env, capture_output=True, check=True, text=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_mercurial_reads_what_was_meant(tmp_path: Path) -> None:
    values = read_back(render_hgrc(OPTIONS), tmp_path)

    assert values["hgfleet.agent-socket"] == "/run/fleet/agent sock"
    assert values["hgfleet.visible-wait"] == "2.5"
    assert values["extensions.hgfleet.hgext.fleet:required"] == "yes"
    assert values["ui.timeout"] == "30"
    fixed = {"server.validate": "yes", "server.bundle1": "no", "subrepos.allowed": "no", "trusted.users": ""}
    assert {name: values[name] for name in fixed} == fixed


def test_a_value_cannot_smuggle_a_setting_in() -> None:
    with pytest.raises(ConfigError):
        render_hgrc(replace(OPTIONS, site_url="https://x\n[hooks]\npretxnclose=evil"))


def test_a_process_sees_nothing_of_the_callers_mercurial() -> None:
    environment = {
        "HGRCPATH": "/home/x/.hgrc",
        "HGMERGE": "x",
        "LANG": "de_DE",
        "PATH": "/bin",
        "HGFLEET_FAULTS": "d",
    }

    clean = without_mercurial_settings(environment)

    assert clean == {
        "PATH": "/bin",
        "HGFLEET_FAULTS": "d",
        "HGRCPATH": "",
        "HGPLAIN": "1",
        "HGENCODING": "UTF-8",
        "LC_ALL": "C.UTF-8",
    }
