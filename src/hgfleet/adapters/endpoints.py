"""endpoints.json: where a running fleet answers and which processes it consists of.

    {"ssh": {"host", "port", "known_hosts"}, "http", "https", "admin", "mirrors": [{"name", "url"}],
     "ca_file", "account", "key_file", "processes": [{"name", "role", "host", "pid"}]}

Promises: written by rename; paths are absolute; a reader sees one state of the fleet, never a mixture.
Does not: say whether the processes are ready (`hgfleet up` prints that).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hgfleet.adapters.files import write_by_rename
from hgfleet.errors import TransientError

NAME = "endpoints.json"


@dataclass(frozen=True, slots=True)
class SshEndpoint:
    """Where to push to, and the file that trusts its host key."""

    host: str
    port: int
    known_hosts: str


@dataclass(frozen=True, slots=True)
class MirrorEndpoint:
    """One mirror, past the load balancer."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process: its role, and the host it works for (`all`: the whole fleet)."""

    name: str
    role: str
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Everything that is needed to reach the fleet; URLs have no slash at their end."""

    ssh: SshEndpoint
    http: str
    https: str
    admin: str
    mirrors: tuple[MirrorEndpoint, ...]
    ca_file: str
    account: str
    key_file: str
    processes: tuple[ProcessEntry, ...] = ()

    def with_processes(self, processes: tuple[ProcessEntry, ...]) -> Endpoints:
        """Return the same endpoints with another list of processes."""
        return replace(self, processes=processes)


def write_endpoints(directory: Path, endpoints: Endpoints) -> None:
    """Replace the directory's endpoints.json."""
    text = json.dumps(asdict(endpoints), indent=2)
    write_by_rename(directory / NAME, text.encode() + b"\n", mode=0o600)


def write_processes(path: Path, processes: tuple[ProcessEntry, ...]) -> None:
    """Replace the file in which one run of a role says which processes it consists of."""
    content = [asdict(process) for process in processes]
    write_by_rename(path, json.dumps(content, indent=2).encode() + b"\n", mode=0o600)


def read_processes(path: Path) -> list[dict[str, Any]]:
    """Return what a run of a role wrote last; [] when there is none."""
    try:
        content: list[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return content


def read_endpoints(directory: Path) -> dict[str, Any]:
    """Return the file's content; raise TransientError `fleet.not-running` when there is none."""
    try:
        content: dict[str, Any] = json.loads((directory / NAME).read_text())
    except (OSError, ValueError) as error:
        raise TransientError(
            "fleet.not-running", "no fleet runs here", hint="start it with `hgfleet up`", path=directory
        ) from error
    return content
