"""The metrics of a fleet: their registry, and how they follow from its state.

Promises: every metric is declared in METRICS, which docs/reference/metrics.md is generated from; values are
taken when asked for.
Does not: keep counters; what is counted over time is counted by Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

State = dict[str, Any]
Sample = tuple[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class GaugeSpec:
    """One gauge: its name, labels, meaning, and its samples out of the fleet's state."""

    name: str
    labels: tuple[str, ...]
    about: str
    samples: Callable[[State], Iterable[Sample]]


def _problems(state: State) -> Iterator[Sample]:
    yield (), len(state["problems"])


def _serving(state: State) -> Iterator[Sample]:
    yield (), float(state.get("log", {}).get("is_serving", False))


def _epoch(state: State) -> Iterator[Sample]:
    if "log" in state:
        yield (), state["log"]["epoch"]


def _snapshots_missing(state: State) -> Iterator[Sample]:
    if "snapshots" in state.get("log", {}):
        yield (), state["log"]["snapshots"]["missing"]


def _snapshot_age(state: State) -> Iterator[Sample]:
    at = state.get("log", {}).get("snapshots", {}).get("oldest_at")
    if at is not None:
        yield (), max(0.0, state["at"] - at)


def _snapshot_bytes(state: State) -> Iterator[Sample]:
    if "snapshots" in state.get("log", {}):
        yield (), state["log"]["snapshots"]["size_bytes"]


def _repositories(state: State) -> Iterator[Sample]:
    if "repositories" in state:
        yield (), state["repositories"]


def _counted(state: State) -> Iterator[Sample]:
    for member in state.get("members", ()):
        yield (member["host"],), float(member["is_counted"])


def _in_service(state: State) -> Iterator[Sample]:
    for member in state.get("members", ()):
        yield (member["host"],), float(member["is_counted"] and member["stage"] == "serving")


def _lag(state: State) -> Iterator[Sample]:
    worst = {member["host"]: 0 for member in state.get("members", ()) if member["is_counted"]}
    for row in state.get("lag", ()):
        for host, exposed in row["hosts"].items():
            worst[host] = max(worst.get(host, 0), row["applied"] - exposed)
    for host, lag in worst.items():
        yield (host,), lag


def _parked(state: State) -> Iterator[Sample]:
    counts = {member["host"]: 0 for member in state.get("members", ())}
    for row in state.get("parked", ()):
        counts[row["host"]] = counts.get(row["host"], 0) + 1
    for host, count in counts.items():
        yield (host,), count


def _coordinator(state: State) -> Iterator[Sample]:
    coordinator = state.get("coordinator")
    if coordinator:
        yield (coordinator["host"],), coordinator["silent_seconds"]


def _feed(name: str) -> Callable[[State], Iterator[Sample]]:
    def samples(state: State) -> Iterator[Sample]:
        if state.get("feed"):
            yield (), state["feed"][name]

    return samples


def _directory(name: str) -> Callable[[State], Iterator[Sample]]:
    def samples(state: State) -> Iterator[Sample]:
        if state.get("directory"):
            yield (), float(state["directory"][name])

    return samples


def _bundles(name: str) -> Callable[[State], Iterator[Sample]]:
    def samples(state: State) -> Iterator[Sample]:
        bundles = state.get("log", {}).get("bundles")
        if bundles:
            yield (), bundles[name]

    return samples


def _bundles_age(state: State) -> Iterator[Sample]:
    at = state.get("log", {}).get("bundles", {}).get("oldest_at")
    if at is not None:
        yield (), max(0.0, state["at"] - at)


def _bundler(name: str) -> Callable[[State], Iterator[Sample]]:
    def samples(state: State) -> Iterator[Sample]:
        if state.get("bundler"):
            yield (), float(state["bundler"][name])

    return samples


def _bundler_silent(state: State) -> Iterator[Sample]:
    if state.get("bundler"):
        yield (), max(0.0, state["at"] - state["bundler"]["looked_at"])


def _bundle_stores(state: State) -> Iterator[Sample]:
    for name, count in state.get("bundler", {}).get("failing_by_store", {}).items():
        yield (name,), count


def _release(state: State) -> Iterator[Sample]:
    yield (state["release"], state["configuration_digest"]), 1.0


METRICS = (
    GaugeSpec("hgfleet_info", ("release", "configuration"), "1, labelled with what runs here", _release),
    GaugeSpec("hgfleet_problems", (), "parts that could not be asked for this scrape", _problems),
    GaugeSpec("hgfleet_log_serving", (), "1 while the log agent accepts appends", _serving),
    GaugeSpec("hgfleet_log_epoch", (), "the epoch that the log agent holds; 0: standby", _epoch),
    GaugeSpec("hgfleet_snapshots_missing", (), "repositories that have no snapshot yet", _snapshots_missing),
    GaugeSpec(
        "hgfleet_snapshot_age_seconds",
        (),
        "age of the oldest among the newest snapshots of all repositories",
        _snapshot_age,
    ),
    GaugeSpec("hgfleet_snapshot_bytes", (), "size of all snapshots in force", _snapshot_bytes),
    GaugeSpec(
        "hgfleet_bundles_repositories", (), "repositories that offer clone bundles", _bundles("repositories")
    ),
    GaugeSpec("hgfleet_bundles_age_seconds", (), "age of the oldest bundles that are offered", _bundles_age),
    GaugeSpec(
        "hgfleet_bundler_silent_seconds",
        (),
        "since when this host's bundler has looked at all repositories",
        _bundler_silent,
    ),
    GaugeSpec(
        "hgfleet_bundler_failing",
        (),
        "repositories whose last bundles could not be made, or not be put into every store",
        _bundler("failing"),
    ),
    GaugeSpec(
        "hgfleet_bundler_store_failing",
        ("store",),
        "the same by the store that did not take them",
        _bundle_stores,
    ),
    GaugeSpec(
        "hgfleet_bundler_unreachable",
        (),
        "advertised bundles that this host could not ask for",
        _bundler("unreachable"),
    ),
    GaugeSpec(
        "hgfleet_bundler_gone",
        (),
        "advertised bundles that were found gone or damaged since the bundler started",
        _bundler("gone"),
    ),
    GaugeSpec("hgfleet_repositories", (), "paths in the catalogue", _repositories),
    GaugeSpec("hgfleet_mirror_counted", ("host",), "1 while the mirror is counted for watermarks", _counted),
    GaugeSpec("hgfleet_mirror_in_service", ("host",), "1 while the mirror serves readers", _in_service),
    GaugeSpec(
        "hgfleet_mirror_lag", ("host",), "messages by which the worst repository is behind on a mirror", _lag
    ),
    GaugeSpec("hgfleet_mirror_parked", ("host",), "repositories that a mirror has parked", _parked),
    GaugeSpec(
        "hgfleet_coordinator_silent_seconds",
        ("host",),
        "age of the last sign of life of the active coordinator; more than a lease: nobody decides",
        _coordinator,
    ),
    GaugeSpec("hgfleet_feed_behind", (), "visible messages that have not entered the feed", _feed("behind")),
    GaugeSpec(
        "hgfleet_feed_behind_seconds", (), "since when the oldest of them waits", _feed("behind_seconds")
    ),
    GaugeSpec(
        "hgfleet_directory_reachable",
        (),
        "1 when the directory of accounts answered the last look-up of this host's SSH front",
        _directory("is_reachable"),
    ),
    GaugeSpec(
        "hgfleet_directory_answered",
        (),
        "look-ups answered from an earlier answer, as the directory did not, since the SSH front started",
        _directory("answered"),
    ),
    GaugeSpec(
        "hgfleet_directory_refused",
        (),
        "look-ups that nothing could be said about, since the SSH front started",
        _directory("refused"),
    ),
)


class _StateCollector(Collector):
    """Turns one state into metric families."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        for spec in METRICS:
            family = GaugeMetricFamily(spec.name, spec.about, labels=spec.labels)
            for labels, value in spec.samples(self._state):
                family.add_metric(labels, value)
            yield family


def format_metrics(state: State) -> bytes:
    """Return the state in Prometheus' text form."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StateCollector(state))
    return generate_latest(registry)


def render_reference() -> str:
    """Return docs/reference/metrics.md."""
    lines = ["# Metrics", "", "Generated from `hgfleet.cli.metrics`; `GET /-/metrics` on the admin listener."]
    lines += ["", "| metric | labels | meaning |", "|---|---|---|"]
    lines += [f"| `{spec.name}` | {', '.join(spec.labels) or '–'} | {spec.about} |" for spec in METRICS]
    return "\n".join([*lines, ""])
