"""What `hgfleet up` prints: where the fleet answers, and commands to paste.

Promises: the commands work as they are in an empty directory, with `hg` and `hgfleet` on PATH and no hgrc.
Does not: run them.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from hgfleet.adapters.endpoints import Endpoints
from hgfleet.config.schema import FleetConfig


def describe_fleet(config: FleetConfig, endpoints: Endpoints, directory: Path) -> str:
    """Return the text, several lines."""
    mirrors = ", ".join(mirror.name for mirror in endpoints.mirrors)
    lines = [
        f"hgfleet in {directory}",
        f"  read     {endpoints.https}/   ({mirrors}; {endpoints.http}/ redirects)",
        f"  push     ssh://{endpoints.account}@{endpoints.ssh.host}:{endpoints.ssh.port}/",
        f"  status   {endpoints.admin}/-/status",
        "",
        "Try it, in any directory:",
        "",
        *(f"  {line}" for line in example_commands(config, endpoints, directory)),
        "",
    ]
    return "\n".join(lines)


def example_commands(config: FleetConfig, endpoints: Endpoints, directory: Path) -> list[str]:
    """Return shell lines that create a repository, push to it and clone it back."""
    ssh = endpoints.ssh
    url = f"{config.base_url}/demo"
    read = ["--config", f"web.cacerts={endpoints.ca_file}"] if endpoints.ca_file else []
    push_url = f"ssh://{endpoints.account}@{ssh.host}:{ssh.port}/demo"
    return [
        shlex.join(["hgfleet", "repo", "create", "demo", "--dir", str(directory)]),
        shlex.join(["hg", "clone", *read, url, "demo"]),
        "echo hello > demo/hello.txt",
        shlex.join(["hg", "-R", "demo", "commit", "-A", "-m", "First", "-u", endpoints.account]),
        shlex.join(["hg", "-R", "demo", "push", "--config", f"ui.ssh={ssh_command(endpoints)}", push_url]),
        shlex.join(["hg", "clone", *read, url, "demo-clone"]),
    ]


def ssh_command(endpoints: Endpoints) -> str:
    """Return the ssh command line that uses the example key and trusts this fleet's host key alone."""
    options = ["IdentitiesOnly=yes", f'UserKnownHostsFile="{endpoints.ssh.known_hosts}"', "LogLevel=ERROR"]
    return shlex.join(
        ["ssh", "-F", "none", "-i", endpoints.key_file, *(word for o in options for word in ("-o", o))]
    )
