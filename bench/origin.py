"""Measures what a pull feels of clients that come to the origin for everything, their bundles being away.

Promises: the same pulls over the same connection with and without the storm, in turns; the clients of the
storm run behind everything else, so that what is measured is the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.http_load import Connection
from bench.material import Line, build_line
from bench.reading import pulls_of_one_changeset
from bench.series import Goal, Row, Series
from bench.setting import Setting
from tests.support.clients import ROOT
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until

_NAME = "stormed"
_CHANGESETS = 2000
_QUICK_CHANGESETS = 200
_LARGE_BYTES = 8 * 1024 * 1024
_CLIENTS = 200
_PULLS = 300
_QUICK_PULLS = 20
_SETTLING_SECONDS = 5.0  # until all places are taken


def measure_origin(setting: Setting) -> Iterator[Row]:
    """Yield the 99th percentile of a pull's time beside 200 full clones, and without."""
    with setting.fleet(1) as fleet:
        changesets = _QUICK_CHANGESETS if setting.is_quick else _CHANGESETS
        line = build_line(fleet.client(), setting.directory / "line", changesets)
        head = _grow(fleet, line)
        fleet.create(_NAME)
        fleet.client().run("-R", line.directory, "push", "-q", fleet.ssh_url(_NAME)).ok()
        heads = fleet.https_url(f"{_NAME}?cmd=heads")
        wait_until(lambda: head.encode() in fleet.fetch(heads).body, what="the push is exposed")
        quiet: list[float] = []
        stormy: list[float] = []
        statuses: list[dict[str, int]] = []
        for _ in range(1 if setting.is_quick else max(3, setting.runs // 3)):
            quiet.append(_slowest(setting, fleet, line))
            with _storm(fleet, head, statuses):
                stormy.append(_slowest(setting, fleet, line))
    refused = sum(seen.get("503", 0) for seen in statuses)
    answered = sum(seen.get("200", 0) for seen in statuses)
    yield Row(
        "origin",
        f"a pull of one changeset while {_CLIENTS} clients want everything, p99",
        Series("ms", tuple(stormy)).scaled(1000, "ms"),
        Series("ms", tuple(quiet)).scaled(1000, "ms"),
        "without them",
        Goal(1.5),
        note=f"{answered} full clones of {changesets} changesets were answered, {refused} refused",
    )


def _grow(fleet: Fleet, line: Line) -> str:
    """Add a changeset that makes a clone too large to be kept in memory; return it."""
    (line.directory / "large").write_bytes(os.urandom(_LARGE_BYTES))
    hg = fleet.client()
    hg.run("-R", line.directory, "update", "-q", "null").ok()
    hg.run("-R", line.directory, "commit", "-q", "-A", "-m", "large", line.directory / "large").ok()
    return hg.run("-R", line.directory, "log", "-r", "tip", "-T", "{node}").ok().out


def _slowest(setting: Setting, fleet: Fleet, line: Line) -> float:
    """Return the 99th percentile of pulls, one after another."""
    requests = pulls_of_one_changeset(line, fleet.https_url(_NAME))
    client = Connection(fleet.https_url(_NAME), fleet.ca_file)
    took = []
    for number in range(_QUICK_PULLS if setting.is_quick else _PULLS):
        started_at = time.perf_counter()
        client.ask(requests[number % len(requests)])
        took.append(time.perf_counter() - started_at)
    client.close()
    return Series("s", tuple(took)).percentile(99)


@contextlib.contextmanager
def _storm(fleet: Fleet, head: str, statuses: list[dict[str, int]]) -> Iterator[None]:
    arguments = [fleet.https_url(_NAME), fleet.ca_file, head, str(_CLIENTS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.clone_clients", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        time.sleep(_SETTLING_SECONDS)
        yield
    finally:
        output, _ = process.communicate()
        statuses.append(json.loads(output))
