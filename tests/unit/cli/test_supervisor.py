"""The supervisor, with small real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hgfleet.adapters.endpoints import ProcessEntry
from hgfleet.adapters.log_files import LogCollector, Rotation
from hgfleet.cli.supervisor import Service, Supervisor
from hgfleet.errors import ConfigError, TransientError
from tests.support.fleet import is_alive
from tests.support.waiting import wait_until

SLEEPER = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("hello", flush=True)
signal.sigwait([signal.SIGTERM])
sys.exit(0)
"""
NOTING = SLEEPER.replace("sys.exit(0)", "open('{order}', 'a').write('{n}')")
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)"
FAILING = "import sys; sys.exit('cannot work')"


def service(
    name: str, code: str = SLEEPER, *, stage: int = 0, is_ready: Callable[[], bool] = bool
) -> Service:
    arguments = [sys.executable, "-c", code]
    ready = is_ready if is_ready is not bool else lambda: True
    return Service(name, name, "all", arguments, dict(os.environ), ready, stage, grace_seconds=0.5)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[LogCollector]:
    collector = LogCollector(tmp_path, Rotation(10_000, 2))
    yield collector
    collector.close()


class Watched:
    """A supervisor that runs in a thread of its own, as `up` runs it in its main thread."""

    def __init__(self, services: list[Service], logs: LogCollector) -> None:
        self.reports: list[tuple[ProcessEntry, ...]] = []
        self.stop = threading.Event()
        self.error: Exception | None = None
        self.failing_reports = 0
        self._supervisor = Supervisor(services, logs, self._report)
        self.is_up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _report(self, entries: tuple[ProcessEntry, ...]) -> None:
        if self.failing_reports:
            self.failing_reports -= 1
            raise OSError("no space")
        self.reports.append(entries)

    def _run(self) -> None:
        try:
            if self._supervisor.bring_up(self.stop, 10.0):
                self.is_up.set()
                self._supervisor.watch(self.stop)
        except TransientError as error:
            self.error = error
        finally:
            self._supervisor.stop()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()

    def pid(self, name: str) -> int:
        [pid] = [entry.pid for entry in self.reports[-1] if entry.name == name]
        return pid


def test_a_process_that_is_killed_is_started_again_and_reported(logs: LogCollector) -> None:
    with Watched([service("one"), service("two")], logs) as watched:
        assert watched.is_up.wait(10)
        before = watched.pid("one")

        os.kill(before, signal.SIGKILL)

        wait_until(
            lambda: {e.name for e in watched.reports[-1]} == {"one", "two"} and watched.pid("one") != before,
            what="the process is replaced",
        )
        assert is_alive(watched.pid("one"))


def test_a_report_that_fails_is_repeated_and_stops_nothing(logs: LogCollector) -> None:
    with Watched([service("one")], logs) as watched:
        assert watched.is_up.wait(10)
        watched.failing_reports = 3
        os.kill(watched.pid("one"), signal.SIGKILL)
        before = watched.reports[-1]

        wait_until(lambda: watched.reports[-1] not in ((), before), what="the replacement is reported")

    assert watched.failing_reports == 0


def test_stopping_ends_everything_and_kills_what_ignores_it(logs: LogCollector) -> None:
    with Watched([service("kind"), service("stubborn", STUBBORN)], logs) as watched:
        assert watched.is_up.wait(10)
        pids = [entry.pid for entry in watched.reports[-1]]

    assert not any(is_alive(pid) for pid in pids)
    assert watched.reports[-1] == ()


def test_a_process_that_needs_another_is_started_once_that_is_ready(logs: LogCollector) -> None:
    gate = threading.Event()
    follower = replace(service("follower"), after="leader")
    with Watched([follower, service("leader", is_ready=gate.is_set)], logs) as watched:
        wait_until(lambda: bool(watched.reports), what="the leader is started")
        assert [entry.name for entry in watched.reports[-1]] == ["leader"]

        gate.set()

        assert watched.is_up.wait(10)
        assert {entry.name for entry in watched.reports[-1]} == {"leader", "follower"}


def test_nothing_is_up_before_every_process_is_ready(logs: LogCollector) -> None:
    gate = threading.Event()
    with Watched([service("slow", is_ready=gate.is_set), service("quick")], logs) as watched:
        wait_until(lambda: bool(watched.reports), what="both are started")
        assert not watched.is_up.wait(0.3)

        gate.set()

        assert watched.is_up.wait(10)


def has_said_hello(path: Path) -> bool:
    return path.exists() and "hello" in path.read_text()


def test_the_highest_stage_is_stopped_first(logs: LogCollector, tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.touch()
    with Watched(
        [service(f"s{n}", NOTING.format(n=n, order=order), stage=n) for n in (1, 3, 2)], logs
    ) as watched:
        assert watched.is_up.wait(10)
        for n in (1, 2, 3):
            wait_until(partial(has_said_hello, tmp_path / f"s{n}.log"), what="it runs")

    assert order.read_text() == "321"


def test_a_process_that_keeps_ending_at_the_start_is_named(logs: LogCollector, tmp_path: Path) -> None:
    watched = Watched([service("broken", FAILING, is_ready=lambda: False)], logs)
    watched.join()

    assert isinstance(watched.error, TransientError)
    assert watched.error.context == {"process": "broken", "reason": "cannot work"}
    wait_until(
        lambda: "cannot work" in (tmp_path / "broken.log").read_text(), what="its words are in its log"
    )


def test_a_stop_during_the_start_is_obeyed(logs: LogCollector) -> None:
    with Watched([service("never-ready", is_ready=lambda: False)], logs) as watched:
        wait_until(lambda: bool(watched.reports), what="it is started")

    assert watched.error is None
    assert watched.reports[-1] == ()


WRONG_CONFIG = "import sys; sys.exit(78)"
LATE = """
import pathlib, sys
tries = pathlib.Path({path!r})
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) < 5:
    sys.exit(75)
"""


def test_without_a_time_out_what_keeps_failing_is_tried_until_it_works(
    logs: LogCollector, tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    late = service(
        "late",
        LATE.format(path=str(tries)) + SLEEPER,
        is_ready=lambda: tries.exists() and len(tries.read_text()) >= 5,
    )
    supervisor = Supervisor([late], logs, lambda _entries: None)

    try:
        assert supervisor.bring_up(threading.Event(), None)
    finally:
        supervisor.stop()
    assert tries.read_text() == "xxxxx"


def test_without_a_time_out_only_a_wrong_configuration_ends_it(logs: LogCollector) -> None:
    supervisor = Supervisor(
        [service("wrong", WRONG_CONFIG, is_ready=lambda: False)], logs, lambda _entries: None
    )

    with pytest.raises(ConfigError, match="does not come up"):
        supervisor.bring_up(threading.Event(), None)
    supervisor.stop()
