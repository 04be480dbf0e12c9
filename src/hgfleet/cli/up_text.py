"""What `hgfleet up` prints: where the fleet answers, and commands to paste.

Promises: the commands work as they are in an empty directory, with `hg` and `hgfleet` on PATH and no hgrc;
where accounts are managed elsewhere there is none that could push, and so no push among them.
A repository of an earlier start is not in their way.
Does not: run them.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from hgfleet.adapters.endpoints import Endpoints
from hgfleet.config.schema import FleetConfig


def describe_fleet(
    config: FleetConfig, endpoints: Endpoints, directory: Path, taken: Collection[str] = ()
) -> str:
    """Return the text, several lines; `taken` are the paths that have a repository."""
    mirrors = ", ".join(mirror.name for mirror in endpoints.mirrors)
    lines = [
        f"hgfleet in {directory}",
        f"  read     {endpoints.https}/   ({mirrors}; {endpoints.http}/ redirects)",
        f"  push     ssh://{endpoints.account or 'ACCOUNT'}@{endpoints.ssh.host}:{endpoints.ssh.port}/",
        f"  status   {endpoints.admin}/-/status",
        "",
        "Try it, in any directory:",
        "",
        *(f"  {line}" for line in example_commands(config, endpoints, directory, _free_name(taken))),
        "",
    ]
    return "\n".join(lines)


def example_commands(config: FleetConfig, endpoints: Endpoints, directory: Path, name: str) -> list[str]:
    """Return shell lines that create a repository, push to it and clone it back."""
    ssh = endpoints.ssh
    url = f"{config.base_url}/{name}"
    read = ["--config", f"web.cacerts={endpoints.ca_file}"] if endpoints.ca_file else []
    create = shlex.join(["hgfleet", "repo", "create", name, "--dir", str(directory)])
    clone = shlex.join(["hg", "clone", *read, url, name])
    if not endpoints.account:
        return [create, clone]
    push_url = f"ssh://{endpoints.account}@{ssh.host}:{ssh.port}/{name}"
    return [
        create,
        clone,
        f"echo hello > {name}/hello.txt",
        shlex.join(["hg", "-R", name, "commit", "-A", "-m", "First", "-u", endpoints.account]),
        shlex.join(["hg", "-R", name, "push", "--config", f"ui.ssh={ssh_command(endpoints)}", push_url]),
        shlex.join(["hg", "clone", *read, url, f"{name}-clone"]),
    ]


def _free_name(taken: Collection[str]) -> str:
    names = (f"demo{number}" if number else "demo" for number in (0, *range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def ssh_command(endpoints: Endpoints) -> str:
    """Return the ssh command line that uses the example key and trusts this fleet's host key alone."""
    options = ["IdentitiesOnly=yes", f'UserKnownHostsFile="{endpoints.ssh.known_hosts}"', "LogLevel=ERROR"]
    return shlex.join(
        ["ssh", "-F", "none", "-i", endpoints.key_file, *(word for o in options for word in ("-o", o))]
    )
