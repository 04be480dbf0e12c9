"""Measures what clone bundles save and what they cost, type by type, on one repository of a usual size.

A clone without a bundle stands beside each clone with one, and `hg bundle` beside each making. The store is a
plain HTTP server, as a CDN's origin would be; what it costs is not the fleet's.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.copies import exposed_file, repository_id, wait_for_seqs
from bench.cpu import cpu_seconds, with_descendants
from bench.free_ports import free_port, is_listening
from bench.history import build_history
from bench.series import Goal, Row, Series, milliseconds
from bench.setting import Setting
from hgfleet.bundles.making import MakingOptions, made_files
from hgfleet.cli.process_command import process_command
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import DEFAULT_KINDS
from tests.support.clients import HgClient, Outcome
from tests.support.fleet import Fleet
from tests.support.waiting import wait_until

_CHANGESETS = 8400
_QUICK_CHANGESETS = 200
_PATH = "bench/bundled"
_SEQ = 2  # of the push; 1 is the creation
_PLAIN_CLONE = "the same without a bundle"
_PLAIN_BUNDLE = "`hg bundle`"
_STORE, _OWN = "where=elsewhere", "where=mirror"
_MAKING_SECONDS = 300.0
_CLONE_SECONDS = 600.0
_CLONE_ROLES = ("web", "clones")
_BUNDLE = ("bundle", "--all", "--type")
_PLAIN_COMMANDS: dict[BundleType, tuple[str, ...]] = {
    BundleType.ZSTD_MAX: ("--config", "experimental.bundlecomplevel.zstd=20", *_BUNDLE, "zstd-v2"),
    BundleType.ZSTD: (*_BUNDLE, "zstd-v2"),
    BundleType.GZIP_V2: (*_BUNDLE, "gzip-v2"),
    BundleType.GZIP_V1: (*_BUNDLE, "gzip-v1"),
    BundleType.PACKED1: ("debugcreatestreamclonebundle",),
    BundleType.STREAM_V2: (*_BUNDLE, "none-v2;stream=v2"),
}
_PREFERENCES = {
    BundleType.ZSTD_MAX: "COMPRESSION=zstd",
    BundleType.ZSTD: "COMPRESSION=zstd",
    BundleType.GZIP_V2: "COMPRESSION=gzip,VERSION=v2",
    BundleType.GZIP_V1: "COMPRESSION=gzip,VERSION=v1",
    BundleType.PACKED1: "COMPRESSION=none,VERSION=packed1",
    BundleType.STREAM_V2: "COMPRESSION=none,VERSION=v2",
}
_Way = tuple[BundleType, str]  # a type, and which store has it


@dataclass(frozen=True, slots=True)
class Cost:
    """What one piece of work took: all values in seconds."""

    wall: float
    cpu: float


def measure_bundles(setting: Setting) -> Iterator[Row]:
    """Yield the cost of making each type, of all in one run, and of clones with and without each."""
    changesets = _QUICK_CHANGESETS if setting.is_quick else _CHANGESETS
    with (
        _store_server(setting.directory.with_name("bundle-store")) as store,
        setting.fleet(1, changes={"bundles": store.tables()}) as fleet,
    ):
        source = setting.directory / "source"
        build_history(source, changesets)
        fleet.create(_PATH)
        hg = fleet.client()
        hg.run("-R", source, "push", "-q", fleet.ssh_url(_PATH), timeout_seconds=_CLONE_SECONDS).ok()
        shown = exposed_file(fleet, fleet.mirror_names()[0], repository_id(fleet, _PATH))
        wait_for_seqs({shown: _SEQ}, _MAKING_SECONDS, fleet.explain)
        rounds = 1 if setting.is_quick else max(1, setting.runs // 7)
        yield from _Makings(setting, fleet, source, rounds).rows()
        yield from _Clones(setting, fleet, rounds).rows()


# ---- the store


@dataclass(frozen=True, slots=True)
class _StoreServer:
    directory: Path
    port: int

    def tables(self) -> dict[str, Any]:
        """Return the table [bundles]: this server and the mirrors' own are the two stores."""
        elsewhere = {"path": str(self.directory), "base_url": f"http://127.0.0.1:{self.port}"}
        own = {"path": str(self.directory.with_name("own-store"))}
        stores = {
            "elsewhere": elsewhere | {"attributes": [_STORE]},
            "own": own | {"attributes": [_OWN]},
        }
        return {"interval": "1s", "stores": stores}


@contextmanager
def _store_server(directory: Path) -> Iterator[_StoreServer]:
    directory.mkdir(parents=True)
    port = free_port()
    arguments = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", str(directory), str(port)]
    with directory.with_suffix(".log").open("wb") as log:
        server = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log)
    try:
        wait_until(lambda: is_listening(port), what="the store's server listens")
        yield _StoreServer(directory, port)
    finally:
        server.terminate()
        server.wait(10.0)


# ---- making


@dataclass(frozen=True, slots=True)
class _Makings:
    """Bundles of the mirror's copy, made as the bundler has them made, beside those of a plain repository."""

    setting: Setting
    fleet: Fleet
    source: Path
    rounds: int

    def rows(self) -> Iterator[Row]:
        """Yield one row per type, then all in one run against the sum of the others."""
        plain_by_kind: dict[BundleType, list[Cost]] = {}
        for kind in _PLAIN_COMMANDS:
            ours: list[Cost] = []
            plain: list[Cost] = []
            for _ in range(1 if kind is BundleType.ZSTD_MAX else self.rounds):  # that one takes its time
                cost, sizes = self._make(frozenset({kind}))
                ours.append(cost)
                plain.append(self._make_plainly(kind))
            plain_by_kind[kind] = plain
            yield _wall_row(f"make one {kind.value} bundle", ours, plain, note=f"{_megabytes(sizes[kind])}")
        yield from self._all_at_once(plain_by_kind)

    def _all_at_once(self, plain_by_kind: dict[BundleType, list[Cost]]) -> Iterator[Row]:
        ours = [self._make(DEFAULT_KINDS)[0] for _ in range(self.rounds)]
        rounds = zip(*(plain_by_kind[kind] for kind in DEFAULT_KINDS), strict=True)
        plain = [Cost(sum(c.wall for c in costs), sum(c.cpu for c in costs)) for costs in rounds]
        what = f"make the {len(DEFAULT_KINDS)} types of a new fleet in one run"
        yield _wall_row(what, ours, plain, Goal(0.6), "the sum of `hg bundle` runs", "zstd-max left out")
        yield _cpu_row(f"{what}, CPU", ours, plain, "the sum of `hg bundle` runs")

    def _make(self, kinds: frozenset[BundleType]) -> tuple[Cost, dict[BundleType, int]]:
        sizes: dict[BundleType, int] = {}
        host = self.fleet.mirror_names()[0]
        repository = repository_id(self.fleet, _PATH)
        root = (self.fleet.directory / "hosts" / host / "repos" / repository / "current").resolve()
        options = MakingOptions(
            scratch=self.setting.directory / "scratch",
            command=process_command(
                "bundle-maker",
                config=self.fleet.directory / "run" / "effective.toml",
                directory=self.fleet.directory,
                name="bundle-maker",
                host=host,
            ),
            environment=self.fleet.environment(),
        )

        def make() -> None:
            with made_files(options, repository, root, kinds) as made:
                assert made is not None
                sizes.update({file.kind: file.size_bytes for file in made.files})

        return _cost_of(make), sizes

    def _make_plainly(self, kind: BundleType) -> Cost:
        """Run Mercurial's own command, with the lowest priority, too."""
        target = self.setting.directory / "plain.hg"
        client = self.fleet.client()
        command = client.argv("-R", self.source, *_PLAIN_COMMANDS[kind], target)
        try:
            return _cost_of(lambda: _run_politely(command, client))
        finally:
            target.unlink()


def _run_politely(command: Sequence[str], client: HgClient) -> None:
    subprocess.run(
        ["nice", "-n", "19", *command], env=client.environment(), check=True, capture_output=True, timeout=600
    )


def _cost_of(work: Callable[[], object]) -> Cost:
    """Do work that child processes do, and say what they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_at = time.perf_counter()
    work()
    wall = time.perf_counter() - started_at
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


# ---- clones


@dataclass(frozen=True, slots=True)
class _Clones:
    """Clones of one repository, each into a new directory that is removed again."""

    setting: Setting
    fleet: Fleet
    rounds: int

    def rows(self) -> Iterator[Row]:
        """Yield what clones cost the mirror and their users, with each type and without any."""
        self._offer(DEFAULT_KINDS)
        yield from self._compare([kind for kind in _PREFERENCES if kind in DEFAULT_KINDS])
        self._offer(frozenset({BundleType.ZSTD_MAX}))
        yield from self._compare([BundleType.ZSTD_MAX])

    def _offer(self, kinds: frozenset[BundleType]) -> None:
        """Have bundles of these types made and offered, and nothing else."""
        names = {kind.value for kind in kinds}
        self.fleet.cli("repo", "set", _PATH, "--bundles", "off").ok()
        self._await("no bundles are offered", lambda: not self._offered())
        types = ",".join(sorted(names))
        self.fleet.cli("repo", "set", _PATH, "--bundles", "on", "--bundle-types", types).ok()
        self._await(f"bundles are offered: {', '.join(names)}", lambda: self._offered() == names)

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        wait_until(condition, what=what, deadline_seconds=_MAKING_SECONDS, explain=self.fleet.explain)

    def _offered(self) -> set[str]:
        """Return the types that the mirror names, from the objects' names."""
        lines = self.fleet.fetch(self.fleet.https_url(f"{_PATH}?cmd=clonebundles")).body.decode().splitlines()
        return {line.split()[0].removesuffix(".hg").rpartition(".")[2] for line in lines}

    def _compare(self, kinds: Sequence[BundleType]) -> Iterator[Row]:
        """Clone without a bundle and with each type in turns; the first clone of all does not count."""
        self._clone(None)
        ways = [None, *((kind, store) for kind in kinds for store in (_STORE, _OWN))]
        costs: dict[_Way | None, list[Cost]] = {way: [] for way in ways}
        for _ in range(self.rounds):
            for way in ways:
                costs[way].append(self._clone(way))
        for kind in kinds:
            yield from _clone_rows(kind, costs[kind, _STORE], costs[kind, _OWN], costs[None])

    def _clone(self, way: _Way | None) -> Cost:
        """Clone; return the client's wall time, and the CPU time of the mirror."""
        target = self.setting.directory / "clone"
        wish = (
            "ui.clonebundles=no" if way is None else f"ui.clonebundleprefers={_PREFERENCES[way[0]]},{way[1]}"
        )
        command = ("clone", "-U", "--config", wish, self.fleet.https_url(_PATH), str(target))
        pids = self._pids()
        before = cpu_seconds(pids)
        started_at = time.perf_counter()
        outcome = self.fleet.client().run(*command, timeout_seconds=_CLONE_SECONDS).ok()
        cost = Cost(time.perf_counter() - started_at, cpu_seconds(pids) - before)
        _check_way(outcome, way)
        shutil.rmtree(target)
        return cost

    def _pids(self) -> list[int]:
        children = [child for role in _CLONE_ROLES for child in self.fleet.children(role)]
        return [pid for child in children for pid in with_descendants(child.pid)]


def _check_way(outcome: Outcome, way: _Way | None) -> None:
    """Fail unless the clone took the bundle that was meant."""
    [line] = [line for line in outcome.out.splitlines() if "clone bundle from" in line] or [""]
    if way is None:
        assert not line, outcome
        return
    assert line.endswith(f".{way[0].value}.hg"), outcome
    assert ("/-/bundle-files/" in line) is (way[1] == _OWN), outcome


# ---- rows


def _wall_row(
    what: str,
    ours: list[Cost],
    plain: list[Cost],
    goal: Goal | None = None,
    beside: str = _PLAIN_BUNDLE,
    note: str = "",
) -> Row:
    series = [Series("s", tuple(cost.wall for cost in costs)) for costs in (ours, plain)]
    return Row("bundles", what, series[0], series[1], beside, goal, note=note)


def _cpu_row(what: str, ours: list[Cost], plain: list[Cost], beside: str) -> Row:
    series = [Series("s", tuple(cost.cpu for cost in costs)) for costs in (ours, plain)]
    return Row("bundles", what, series[0], series[1], beside)


def _clone_rows(kind: BundleType, fetched: list[Cost], own: list[Cost], without: list[Cost]) -> Iterator[Row]:
    what = f"clone with a {kind.value} bundle"
    yield _server_row(what, fetched, without, Goal(0.003))
    yield _server_row(f"{what} that the mirror serves itself", own, without, None)
    yield _wall_row(f"{what}, the client's wall time", fetched, without, None, _PLAIN_CLONE)


def _server_row(what: str, ours: list[Cost], plain: list[Cost], goal: Goal | None) -> Row:
    series = [milliseconds([cost.cpu for cost in costs]) for costs in (ours, plain)]
    return Row("bundles", f"{what}, the mirror's CPU", series[0], series[1], _PLAIN_CLONE, goal)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
