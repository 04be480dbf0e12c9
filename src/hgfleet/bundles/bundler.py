"""The bundler: looks at every repository in turn, again and again, and has its bundles made, or not.

What is advertised is checked first: what is gone is dropped, and made again in the same look.

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
from hgfleet.adapters.bundler_status import write_bundler_status
from hgfleet.bundles.check_run import CheckOutcome, check_repository, renew_repository
from hgfleet.bundles.check_times import CheckPolicy, CheckTimes
from hgfleet.bundles.checking import Condition
from hgfleet.bundles.clone_rates import CloneRates
from hgfleet.bundles.making import clean_scratch
from hgfleet.bundles.repository_run import Outcome, RepositoryRun, RunOptions
from hgfleet.bundles.sweeping import read_named, sweep
from hgfleet.bundles.tally import Tally
from hgfleet.bundles.turn import Turn, TurnOptions
from hgfleet.errors import FleetError
from hgfleet.model.bundle_policy import Step
from hgfleet.model.ids import RepoId
from hgfleet.runtime import clock

_GOODBYE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 6 * 3600.0  # after failures of a repository in a row
_FIRST_LOOK_SECONDS = 1.0  # after the start; a fleet that comes up has other things to do
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BundlerOptions:
    """What a bundler needs to know."""

    run: RunOptions
    turn: TurnOptions
    agent_socket: Path
    status_file: Path  # for this host's metrics
    interval_seconds: float
    checks: CheckPolicy = CheckPolicy()
    rates: CloneRates = field(default_factory=CloneRates)  # what `run` decides by, too


def run_bundler(options: BundlerOptions, stop: threading.Event) -> None:
    """Look after bundles until `stop` is set."""
    clean_scratch(options.run.making.scratch)
    turn = Turn(options.turn, stop)
    turn.start()
    pause_seconds = min(_FIRST_LOOK_SECONDS, options.interval_seconds)
    with BundleClient(options.agent_socket) as client:
        bundler = Bundler(options, client)
        while not stop.wait(pause_seconds):
            is_ours = turn.is_ours
            if is_ours:
                bundler.look_at_all(stop)
            pause_seconds = options.interval_seconds if is_ours else pause_seconds
    turn.join(_GOODBYE_SECONDS)


class Bundler:
    """Looks at repositories, and remembers when it checked what."""

    def __init__(self, options: BundlerOptions, client: BundleClient) -> None:
        self._options = options
        self._client = client
        self._times = CheckTimes(options.checks)
        self._tally = Tally()
        self._swept_at = 0.0
        self._failures: dict[RepoId, int] = {}  # in a row
        self._not_before: dict[RepoId, float] = {}

    def look_at_all(self, stop: threading.Event) -> None:
        """Look at every repository once."""
        self._options.rates.refresh(self._client)
        try:
            paths, _seq = self._client.paths()
        except FleetError as error:
            _log.info("bundles.not-looked", reason=str(error))
            return
        for bound in paths:
            if stop.is_set():
                return
            self.look_at(bound)
        self._sweep()
        self._tally.keep_only({bound.repository for bound in paths})
        write_bundler_status(self._options.status_file, self._tally.status(clock.now()))

    def _sweep(self) -> None:
        """Remove what nothing names, now and then; what does not work is for the next time."""
        run, now = self._options.run, clock.now()
        if now - self._swept_at < self._options.checks.check_seconds:
            return
        self._swept_at = now
        try:
            named = read_named(self._client, run.stores)
        except FleetError as error:
            _log.info("bundles.not-swept", reason=str(error))
            return
        for store in run.stores:
            try:
                for name in sweep(store, named, now - run.grace_seconds):
                    _log.info("bundles.swept", store=store.name, name=name)
            except FleetError as error:
                _log.info("bundles.not-swept", store=store.name, reason=str(error))

    def look_at(self, bound: BoundPath) -> None:
        """Check, renew and make what is due for one repository; a failure is logged and harms no other."""
        started_at = clock.monotonic()
        names = {"repository": bound.repository, "path": bound.path}
        try:
            self._check(bound, names)
            if started_at < self._not_before.get(bound.repository, 0.0):
                return
            outcome = RepositoryRun(self._options.run, self._client, bound).run()
        except (FleetError, OSError) as error:
            self._note_run(bound.repository, is_failed=True)
            _log.warning("bundles.failed", **names, reason=str(error))
            return
        self._note_run(bound.repository, is_failed=bool(outcome.failures), outcome=outcome)
        _log_outcome(outcome, names, clock.monotonic() - started_at)

    def _note_run(self, repository: RepoId, *, is_failed: bool, outcome: Outcome | None = None) -> None:
        """Wait longer after each failure: else a store that is down has all made anew again and again."""
        stores = {failure.store for failure in outcome.failures} if outcome else ()
        self._tally.note_run(repository, is_failed=is_failed, stores=stores)
        if not is_failed:
            self._failures.pop(repository, None)
            self._not_before.pop(repository, None)
            return
        count = self._failures[repository] = self._failures.get(repository, 0) + 1
        pause = min(self._options.interval_seconds * 2 ** min(count, 16), _LONGEST_PAUSE_SECONDS)
        self._not_before[repository] = clock.monotonic() + pause

    def _check(self, bound: BoundPath, names: dict[str, str]) -> None:
        current = self._client.bundles(bound.repository).state.current
        if not current.entries:
            return
        run, now, repository = self._options.run, clock.now(), bound.repository
        made_at = current.made.at if current.made else 0.0
        due = self._times.due(repository, made_at, run.shortest_expiry_seconds, now)
        if due.is_renewal:
            renewed = renew_repository(run, self._client, bound)
            self._note_checked(renewed, names)
            if not renewed.checked:
                self._times.note_renewal(repository, now)
        if due.is_check:
            before = self._times.unreachable(repository)
            found = check_repository(
                run, self._client, bound, is_whole=due.is_whole, unreachable_before=before
            )
            self._note_checked(found, names)
            self._times.note_check(repository, now, is_whole=due.is_whole, unreachable=found.unreachable)

    def _note_checked(self, found: CheckOutcome, names: dict[str, str]) -> None:
        gone = sum(one.condition is Condition.GONE for one in found.checked)
        repository = RepoId(names["repository"])
        self._tally.note_check(repository, unreachable=len(found.unreachable), gone=gone)
        _log_checked(found, names)


def _log_checked(found: CheckOutcome, names: dict[str, str]) -> None:
    """Write what a person should look at: bundles that clients were told of and could not get."""
    for one in found.checked:
        fields = {**names, "store": one.entry.store, "url": one.entry.url, "reason": one.reason}
        if one.condition is Condition.GONE:
            _log.error("bundles.gone", **fields)
        elif one.condition is Condition.UNREACHABLE:
            _log.warning("bundles.unreachable", **fields, is_dropped=one in found.dropped)


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
