"""The bundler: looks at every repository in turn, again and again, and has its bundles made, or not.

Promises: a repository that fails harms no other; what failed is tried again at the next look; killed at any
point, the next life cleans up and goes on. Each look leaves one line in the log for each repository for which
something was done.
Does not: decide (model.bundle_policy), or serve what it makes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from hgfleet.adapters.agent_answers import BoundPath
from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.bundles.clone_rates import CloneRates
from hgfleet.bundles.making import clean_scratch
from hgfleet.bundles.repository_run import Outcome, RepositoryRun, RunOptions
from hgfleet.bundles.turn import Turn, TurnOptions
from hgfleet.errors import FleetError
from hgfleet.model.bundle_policy import Step
from hgfleet.runtime import clock

_GOODBYE_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 1.0  # after the start; a fleet that comes up has other things to do
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BundlerOptions:
    """What a bundler needs to know."""

    run: RunOptions
    turn: TurnOptions
    agent_socket: Path
    interval_seconds: float
    rates: CloneRates = field(default_factory=CloneRates)  # what `run` decides by, too


def run_bundler(options: BundlerOptions, stop: threading.Event) -> None:
    """Look after bundles until `stop` is set."""
    clean_scratch(options.run.making.scratch)
    turn = Turn(options.turn, stop)
    turn.start()
    pause_seconds = min(_FIRST_LOOK_SECONDS, options.interval_seconds)
    with BundleClient(options.agent_socket) as client:
        while not stop.wait(pause_seconds):
            is_ours = turn.is_ours
            if is_ours:
                _look_at_all(options, client, stop)
            pause_seconds = options.interval_seconds if is_ours else pause_seconds
    turn.join(_GOODBYE_SECONDS)


def _look_at_all(options: BundlerOptions, client: BundleClient, stop: threading.Event) -> None:
    options.rates.refresh(client)
    try:
        paths, _seq = client.paths()
    except FleetError as error:
        _log.info("bundles.not-looked", reason=str(error))
        return
    for bound in paths:
        if stop.is_set():
            return
        _look_at(options, client, bound)


def _look_at(options: BundlerOptions, client: BundleClient, bound: BoundPath) -> None:
    started_at = clock.monotonic()
    names = {"repository": bound.repository, "path": bound.path}
    try:
        outcome = RepositoryRun(options.run, client, bound).run()
    except (FleetError, OSError) as error:
        _log.warning("bundles.failed", **names, reason=str(error))
        return
    _log_outcome(outcome, names, clock.monotonic() - started_at)


def _log_outcome(outcome: Outcome, names: dict[str, str], seconds: float) -> None:
    for failure in outcome.failures:
        _log.warning("bundles.store-failed", **names, store=failure.store, reason=str(failure.error))
    if outcome.decision.step in {Step.MAKE, Step.RETIRE} or outcome.removed:
        _log.info(
            "bundles.done",
            **names,
            step=outcome.decision.step.value,
            reason=outcome.decision.reason,
            entries=len(outcome.in_force.state.offered),
            size_bytes=outcome.size_bytes,
            removed=outcome.removed,
            seconds=round(seconds, 3),
        )
