"""Keeps the processes of a fleet on one machine, or of a host's role, running: starts, restarts, stops them.

Promises: a process that ends is started again, at once the first time and with growing pauses when it keeps
ending; every change of the set of processes is reported; stop() ends all of them, the first started last, and
kills what does not end in time.
Does not: know what the processes are for, or outlive the thread that made it (children end with that thread).
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from hgfleet.adapters.endpoints import ProcessEntry
from hgfleet.adapters.log_files import LogCollector
from hgfleet.adapters.processes import Child, Program, start
from hgfleet.errors import ConfigError, FleetError, TransientError
from hgfleet.runtime import clock
from hgfleet.runtime.retry import Backoff

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 5.0
_STABLE_SECONDS = 20.0  # a process that lived so long is started at once the next time
_TICK_SECONDS = 0.1
_ENDS_AT_START = 3  # a process that ended so often before anything was ready does not start
_CONFIG_EXIT = ConfigError.exit_code


@dataclass(frozen=True, slots=True)
class Service:
    """One process to keep running. `is_ready` may block for a second and never raises."""

    name: str
    role: str
    host: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool]
    stage: int  # the highest is stopped first
    grace_seconds: float = 5.0
    after: str = ""  # the service that must be ready before this one's first start


@dataclass(slots=True)
class _Running:
    service: Service
    child: Child | None = None
    started_at: float = 0.0
    start_at: float = 0.0  # when to start it again
    ends: int = 0
    config_ends: int = 0  # of these, because an operator has to change something
    is_begun: bool = False
    backoff: Backoff = field(default_factory=lambda: Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))


class Supervisor:
    """The processes of one fleet. All calls from one thread, which must live as long as the fleet.

    `report` may raise OSError: it is called again.
    """

    def __init__(
        self,
        services: Sequence[Service],
        logs: LogCollector,
        report: Callable[[tuple[ProcessEntry, ...]], None],
    ) -> None:
        ordered = sorted(services, key=lambda service: service.stage)
        self._all = [_Running(service) for service in ordered]
        self._logs = logs
        self._report = report
        self._is_reported = True

    def bring_up(self, stop: threading.Event, timeout_seconds: float | None) -> bool:
        """Start everything and wait until all of it is ready; False when asked to stop meanwhile.

        Raises TransientError that names the process which does not come up. Without a time-out it is tried
        for ever, and only a process that says that its configuration is wrong, again and again, ends it, with
        ConfigError.
        """
        deadline = None if timeout_seconds is None else clock.monotonic() + timeout_seconds
        waiting = list(self._all)
        while waiting:
            self._start_due({running.service.name for running in waiting})
            self._tick()
            if stop.is_set():
                return False
            waiting = [running for running in waiting if not self._is_ready(running)]
            self._check_start(waiting, deadline)
        return True

    def watch(self, stop: threading.Event) -> None:
        """Restart what ends until asked to stop."""
        while not stop.is_set():
            self._tick()

    def stop(self) -> None:
        """End everything, the last stage first."""
        for stage in sorted({running.service.stage for running in self._all}, reverse=True):
            self._stop_stage([running for running in self._all if running.service.stage == stage])
        self._publish()

    # ---- starting

    def _start_due(self, unready: set[str]) -> None:
        """Start what has not been started and waits for nothing that is not ready."""
        due = [
            running for running in self._all if not running.is_begun and running.service.after not in unready
        ]
        for running in due:
            self._start(running)
        if due:
            self._publish()

    @staticmethod
    def _is_ready(running: _Running) -> bool:
        return running.child is not None and running.service.is_ready()

    def _check_start(self, waiting: Sequence[_Running], deadline: float | None) -> None:
        for running in waiting:
            name, is_patient = running.service.name, deadline is None
            ends = running.config_ends if is_patient else running.ends + _ENDS_AT_START * running.config_ends
            if ends >= _ENDS_AT_START:
                kind = ConfigError if is_patient else TransientError
                raise self._does_not_start(name, self._logs.last_failure(name) or "it keeps ending", kind)
        if waiting and deadline is not None and clock.monotonic() > deadline:
            names = ", ".join(running.service.name for running in waiting)
            raise self._does_not_start(names, "not ready in time")

    def _does_not_start(
        self, name: str, reason: str, kind: type[ConfigError] | type[TransientError] = TransientError
    ) -> FleetError:
        return kind(
            "process.not-ready",
            "the fleet does not come up",
            hint=f"the logs in {self._logs.directory} tell more",
            process=name,
            reason=reason,
        )

    def _start(self, running: _Running) -> None:
        service = running.service
        running.is_begun = True
        writer = self._logs.open(service.name)
        try:
            with os.fdopen(writer, "wb") as output:
                running.child = start(
                    Program(service.arguments, environment=service.environment, stdout=output, stderr=output)
                )
        except TransientError as error:
            self._schedule(running, str(error))
            return
        running.started_at = clock.monotonic()
        log.info("process.started", name=service.name, pid=running.child.pid)

    # ---- watching

    def _tick(self) -> None:
        """Wait a moment for a child to end; start again what ended and is due."""
        poll = select.poll()
        for running in self._all:
            if running.child is not None:
                poll.register(running.child.fileno(), select.POLLIN)
        poll.poll(_TICK_SECONDS * 1000)
        has_changed = [self._reap(running) or self._restart_if_due(running) for running in self._all]
        if any(has_changed) or not self._is_reported:
            self._publish()

    def _reap(self, running: _Running) -> bool:
        child = running.child
        if child is None or (status := child.exit_status()) is None:
            return False
        child.close()
        running.child = None
        running.ends += 1
        running.config_ends += status == _CONFIG_EXIT
        self._schedule(running, f"exit status {status}")
        return True

    def _schedule(self, running: _Running, reason: str) -> None:
        if clock.monotonic() - running.started_at > _STABLE_SECONDS:
            running.backoff.reset()
        pause = running.backoff.next_pause()
        running.start_at = clock.monotonic() + pause
        log.warning("process.ended", name=running.service.name, reason=reason, pause_seconds=pause)

    def _restart_if_due(self, running: _Running) -> bool:
        is_due = running.child is None and running.start_at and clock.monotonic() >= running.start_at
        if not is_due:
            return False
        running.start_at = 0.0
        self._start(running)
        return True

    def _publish(self) -> None:
        """Report the processes; on a full disk again at the next tick, as they run all the same."""
        entries = tuple(
            ProcessEntry(running.service.name, running.service.role, running.service.host, child.pid)
            for running in self._all
            if (child := running.child) is not None
        )
        try:
            self._report(entries)
        except OSError as error:
            if self._is_reported:
                log.warning("process.not-reported", reason=str(error))
            self._is_reported = False
        else:
            self._is_reported = True

    # ---- stopping

    @staticmethod
    def _stop_stage(members: Sequence[_Running]) -> None:
        for running in members:
            if running.child is not None:
                running.child.terminate()
        deadline = clock.monotonic() + max(running.service.grace_seconds for running in members)
        for running in members:
            if running.child is not None:
                running.child.stop(max(0.0, deadline - clock.monotonic()))
                running.child.close()
                running.child = None
