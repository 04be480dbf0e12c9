"""Measures what happens to a push after the primary has it: applied, exposed, caught up with.

Beside it stands `hg pull`, which is what a plain mirror runs for each push.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.copies import (
    Watch,
    agent_of,
    applied_file,
    create_quickly,
    exposed_file,
    repository_id,
    wait_for_seqs,
)
from bench.cpu import cpu_seconds, with_descendants
from bench.material import Line, build_line
from bench.plain_servers import plain_server
from bench.series import Goal, Row, Series, milliseconds
from bench.setting import Setting
from tests.support.clients import ROOT, HgClient
from tests.support.fleet import Fleet
from tests.support.kafka import running_kafka
from tests.support.waiting import wait_until

_FIRST = 200
_PATH = "bench/replicated"
_BATCH = 10
_PULLS = 20
_DEADLINE_SECONDS = 300.0
_PULL = "`hg pull` process"


@dataclass(frozen=True, slots=True)
class Source:
    """Changesets on their way into one repository of a fleet."""

    fleet: Fleet
    line: Line
    path: str

    def push(self, first: int, count: int) -> list[float]:
        """Push so many revisions one by one; return the seconds each took."""
        return push_all([self], [self.line.nodes[first : first + count]])


def push_all(sources: Sequence[Source], nodes: Sequence[Sequence[str]]) -> list[float]:
    """Push to several repositories in turns, one changeset at a time; return the seconds each took."""
    fleet = sources[0].fleet
    client = fleet.client()
    plan = fleet.directory.parent / "plan.json"
    pushes = [
        {"directory": str(source.line.directory), "url": fleet.ssh_url(source.path), "nodes": list(wanted)}
        for source, wanted in zip(sources, nodes, strict=True)
    ]
    plan.write_text(json.dumps({"config": list(client.config), "pushes": pushes}))
    done = subprocess.run(
        [sys.executable, "-m", "bench.many_pushes", str(plan)],
        cwd=ROOT,
        env=client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    return [float(text) for text in done.stdout.split()]


# ---- exposed


def measure_exposure(setting: Setting) -> Iterator[Row]:
    """Yield how long two mirrors take to show what the primary has."""
    yield from _exposure_rows("expose", milliseconds(_exposure_lags(setting, 2)), "2 mirrors")


def measure_kafka(setting: Setting) -> Iterator[Row]:
    """Yield how long three mirrors take with the log on three brokers, and how fast one catches up."""
    brokers = 1 if setting.is_quick else 3
    with running_kafka(setting.directory.with_name("brokers"), brokers) as kafka:
        setting = replace(setting, kafka=kafka)
        lags = milliseconds(_exposure_lags(setting, 3))
        yield from _exposure_rows("kafka", lags, f"3 mirrors, {brokers} Kafka brokers here too")
        for row in measure_catching_up(setting):
            yield replace(row, benchmark="kafka", what=f"{row.what}, log in Kafka")


def _exposure_rows(benchmark: str, lags: Series, where: str) -> Iterator[Row]:
    what = f"on the primary's disk → exposed on {where}"
    yield Row(benchmark, f"{what}, median", lags, goal=Goal(60, "ms"))
    yield Row(benchmark, f"{what}, p99", lags, goal=Goal(250, "ms", percent=99))


def _exposure_lags(setting: Setting, mirrors: int) -> list[float]:
    """Push one after another; return the seconds from the primary's commit to the last mirror's exposing."""
    pushes = setting.runs * 5
    with setting.fleet(mirrors) as fleet:
        source = _make_source(setting, fleet, pushes)
        repository = repository_id(fleet, _PATH)
        files = [applied_file(fleet, "primary", repository)]
        files += [exposed_file(fleet, name, repository) for name in fleet.mirror_names()]
        before = len(source.push(_FIRST, 2)) + 2  # seq 1 is the creation, 2 what was there first
        with Watch(files) as watch:
            source.push(_FIRST + 2, pushes)
            wait_for_seqs(dict.fromkeys(files, before + pushes), _DEADLINE_SECONDS, fleet.explain)
            wait_until(lambda: all(max(s) >= before + pushes for s in watch.seen_at_by_seq), what="seen")
        return [_lag(watch, seq) for seq in range(before + 1, before + pushes + 1)]


def _lag(watch: Watch, seq: int) -> float:
    committed_at, *exposed_at = [watch.first_seen(place, seq) for place in range(len(watch.files))]
    return max(exposed_at) - committed_at


def _make_source(setting: Setting, fleet: Fleet, pushes: int) -> Source:
    """Make a repository with some history in a fleet, and more changesets to push."""
    line = build_line(fleet.client(), setting.directory / "line", _FIRST + pushes + _BATCH)
    source = Source(fleet, line, fleet.create(_PATH))
    push_all([source], [[line.nodes[_FIRST - 1]]])
    return source


# ---- applied


def measure_applying(setting: Setting) -> Iterator[Row]:
    """Yield what applying one small push costs a mirror."""
    batches = max(3, setting.runs // 2)
    with setting.fleet(1) as fleet:
        source = _make_source(setting, fleet, batches * _BATCH)
        costs = _apply_costs(fleet, source, batches)
        pulls = _sample_pulls(fleet, source.line)
    yield Row(
        "apply",
        "CPU to apply one small push on a mirror",
        milliseconds(costs),
        milliseconds([pull.cpu_seconds for pull in pulls]),
        _PULL,
        Goal(40, "× less", at_most=False),
        "plain/ours",
        "applier and apply workers together, exposing and idling included; of `hg pull` only the client",
    )


def _apply_costs(fleet: Fleet, source: Source, batches: int) -> list[float]:
    """Push in small batches, each push on its own; return the CPU seconds per push of each batch."""
    applier = fleet.child("applier", "mirror1")
    exposed = exposed_file(fleet, "mirror1", repository_id(fleet, _PATH))
    source.push(_FIRST, _BATCH)  # warm
    costs = list[float]()
    for batch in range(1, batches):
        before = cpu_seconds(with_descendants(applier.pid))
        source.push(_FIRST + batch * _BATCH, _BATCH)
        wait_for_seqs({exposed: 2 + (batch + 1) * _BATCH}, _DEADLINE_SECONDS, fleet.explain)
        costs.append((cpu_seconds(with_descendants(applier.pid)) - before) / _BATCH)
    return costs


# ---- caught up


def measure_catching_up(setting: Setting) -> Iterator[Row]:
    """Yield how fast a mirror that stood still reads a thousand pushes over fifty repositories."""
    repositories, each = (5, 4) if setting.is_quick else (50, 20)
    pushes = repositories * each
    with setting.fleet(2, visible_wait="0s") as fleet:
        sources = _make_sources(setting, fleet, repositories, each)
        target = _targets(fleet, sources, 2 + each)
        with fleet.paused("applier", "mirror1"):
            push_all(sources, [source.line.nodes[1 : 1 + each] for source in sources])
            # The other mirror shows everything once the one that stands still is no longer waited for.
            _wait_until_exposed(fleet, "mirror2", sources, 2 + each)
            before = cpu_seconds(with_descendants(fleet.child("applier", "mirror1").pid))
        started_at = time.perf_counter()
        wait_for_seqs(target, _DEADLINE_SECONDS, fleet.explain)
        took = time.perf_counter() - started_at
        used = cpu_seconds(with_descendants(fleet.child("applier", "mirror1").pid)) - before
        pulls = _sample_pulls(fleet, build_line(fleet.client(), setting.directory / "pulled-from", 100))
    sampled = f"extrapolated from {len(pulls)} pulls, one after another"
    yield Row(
        "catch-up",
        f"a mirror applies {pushes:,} small pushes over {repositories} repositories",
        Series("s", (took,)),
        Series("s", tuple(pull.wall_seconds * pushes for pull in pulls)),
        f"{_PULL} each, {sampled}",
        Goal(100, "× faster", at_most=False),
        "plain/ours",
        f"the other mirror had gone on; {used / pushes * 1000:.2f} ms of CPU per push",
    )


def _make_sources(setting: Setting, fleet: Fleet, repositories: int, each: int) -> list[Source]:
    """Make repositories with one changeset each, and wait until the mirror has them."""
    first = build_line(fleet.client(), setting.directory / "line0", 1 + each)
    sources = list[Source]()
    for number in range(repositories):
        line = first.copied(setting.directory / f"line{number + 1}")
        sources.append(Source(fleet, line, create_quickly(fleet, f"bench/many/{number}")))
    push_all(sources, [[first.nodes[0]] for _ in sources])
    wait_for_seqs(_targets(fleet, sources, 2), _DEADLINE_SECONDS, fleet.explain)
    return sources


def _wait_until_exposed(fleet: Fleet, mirror: str, sources: Sequence[Source], seq: int) -> None:
    with agent_of(fleet) as agent:
        ids = [agent.resolve(source.path).repository for source in sources]
    files = [exposed_file(fleet, mirror, repository) for repository in ids]
    wait_for_seqs(dict.fromkeys(files, seq), _DEADLINE_SECONDS, fleet.explain)


def _targets(fleet: Fleet, sources: Sequence[Source], seq: int) -> dict[Path, int]:
    with agent_of(fleet) as agent:
        ids = [agent.resolve(source.path).repository for source in sources]
    return {applied_file(fleet, "mirror1", repository): seq for repository in ids}


# ---- pulled


@dataclass(frozen=True, slots=True)
class Pull:
    """What one `hg pull` of one changeset took."""

    wall_seconds: float
    cpu_seconds: float


def _sample_pulls(fleet: Fleet, line: Line) -> list[Pull]:
    """Pull changesets one by one into a plain copy, each by a process of its own, from a plain server."""
    hg, room = fleet.client(), fleet.directory.parent / "pulls"
    copy = room / "copy"
    line.copied(room / "served" / "one")
    start = len(line.nodes) - _PULLS - 1
    hg.run("clone", "-q", "-U", "--pull", "-r", line.nodes[start], line.directory, copy).ok()
    with plain_server(fleet, room / "served", "hgweb") as server:
        return [_pull(hg, copy, server.url, node) for node in line.nodes[start + 1 :]]


def _pull(hg: HgClient, copy: Path, url: str, node: str) -> Pull:
    started_at = time.perf_counter()
    child = hg.start("-R", copy, "pull", "-q", "-r", node, url)
    _, status, usage = os.wait4(child.pid, 0)
    wall_seconds = time.perf_counter() - started_at
    child.returncode = os.waitstatus_to_exitcode(status)
    child.communicate()
    assert child.returncode == 0, "hg pull failed"
    return Pull(wall_seconds, usage.ru_utime + usage.ru_stime)
