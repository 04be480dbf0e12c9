"""Starts plain Mercurial's web server with a fleet's certificate and its numbers of workers and threads."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import ROOT, clean_environment
from tests.support.fleet import Fleet

_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PlainServer:
    """A running server."""

    url: str
    pid: int


@contextmanager
def plain_server(fleet: Fleet, repositories: Path, kind: str) -> Iterator[PlainServer]:
    """Serve a directory of repositories by `hgwebdir`, or the only one in it by `hgweb`."""
    http = tomllib.loads((fleet.directory / "run" / "effective.toml").read_text()).get("http", {})
    keys = fleet.directory / "keys"
    certificate = (keys / "server.pem", keys / "server-key.pem")
    threads = (http.get("workers", 2), http.get("threads", 8))
    arguments = [str(word) for word in (repositories, *certificate, *threads, kind)]
    with (fleet.directory.parent / f"plain-{kind}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.plain_web", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=clean_environment(repositories.parent),
        )
    assert child.stdout is not None
    port = int(child.stdout.readline() or b"0")
    assert port, (fleet.directory.parent / f"plain-{kind}.log").read_text()
    try:
        yield PlainServer(f"https://localhost:{port}/", child.pid)
    finally:
        child.terminate()
        child.wait(_STOP_SECONDS)
        child.stdout.close()
