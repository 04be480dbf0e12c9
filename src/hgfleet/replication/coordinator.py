"""The coordinator's process: reads the state topic and does what model.coordination decides.

Promises: killed at any point, the next life goes on from what the log says; while it is down nothing goes
backwards, exposure only waits. A decision whose fate is not known ends this life: the next one's claim makes
the old decisions void, wherever they still are. Beside another it stands by (model.succession), and at a
clean stop it says that it leaves: whoever stands by takes over at once.
Does not: hold anything that is not in the log, or serve HTTP (the admin listener asks `status`).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from hgfleet.adapters.agent_answers import StateEvent, StateRecords
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.errors import InDoubtError, TransientError
from hgfleet.model.coordination import Act, Coordinator, Step
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Claim, StateRecord
from hgfleet.model.ids import HostName, RepoId, Seq
from hgfleet.model.succession import FRESH, Heritage
from hgfleet.replication.feed_keeper import FeedKeeper, feed_start
from hgfleet.replication.feed_writer import FeedOptions, FeedStart
from hgfleet.replication.fleet_status import describe_fleet
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults
from hgfleet.runtime.retry import Backoff

CLEAN_SECONDS = 1.0  # between two batches of removals, which nobody waits for
WAIT_SECONDS = 0.2  # at most this long between two looks at the clock
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CoordinatorOptions:
    """What a coordinator needs to know."""

    host: HostName
    agent_socket: Path
    lease_seconds: float
    floor: int
    faults: Faults = NO_FAULTS

    @property
    def feed(self) -> FeedOptions:
        """What the feed's writer beside it needs to know."""
        return FeedOptions(self.host, self.agent_socket, self.faults)


class CoordinatorService:
    """Lives of a coordinator, one after another, until told to stop."""

    def __init__(self, options: CoordinatorOptions) -> None:
        self._options = options
        self._brain: Coordinator | None = None
        self._heritage = FRESH
        self._lock = threading.Lock()  # over the brain, which `status` reads from other threads

    def run(self, stop: threading.Event) -> None:
        """Coordinate until `stop` is set; never raises for what heals by itself."""
        backoff = Backoff(0.05, 1.0)
        while not stop.is_set():
            try:
                self._live(stop, backoff)
            except (TransientError, InDoubtError) as error:
                _log.warning("coordinator.life-ended", code=error.code, reason=str(error))
                stop.wait(backoff.next_pause())

    def status(self) -> dict[str, Any]:
        """Return who is in the fleet and how far, for the admin listener; safe from any thread."""
        with self._lock:
            brain = self._brain
            fields = describe_fleet(brain.view if brain else FleetView())
            return {"claim": brain.number if brain else None, **fields}

    def _live(self, stop: threading.Event, backoff: Backoff) -> None:
        options = self._options
        claim = Claim(options.host, uuid.uuid4().hex)
        brain = Coordinator(claim, options.lease_seconds, options.floor, self._heritage)
        with (
            self._inheriting(claim, brain),
            LogAgentClient(options.agent_socket) as client,
            client.state_follow() as events,
        ):
            feed = FeedKeeper(options.feed, partial(self._feed_start, brain))
            life = _Life(brain, client, feed, options.faults, self._lock)
            with feed:
                while not stop.is_set() and not brain.is_deposed:
                    life.turn(events)
                    if brain.number is not None:
                        backoff.reset()
                        feed.turn(self._take_shown(brain))
            life.say_farewell()
        if brain.is_deposed:
            _log.warning("coordinator.deposed", claim=brain.number)

    @contextmanager
    def _inheriting(self, claim: Claim, brain: Coordinator) -> Iterator[None]:
        """Note what the next life inherits from this one, however it ends."""
        with self._lock:
            self._brain = brain
        try:
            yield
        finally:
            lives = self._heritage.lives | ({claim.life} if brain.has_claimed else set())
            self._heritage = Heritage(lives, self._heritage.is_first and not brain.has_judged)

    def _take_shown(self, brain: Coordinator) -> dict[RepoId, Seq]:
        with self._lock:
            return brain.view.take_shown()

    def _feed_start(self, brain: Coordinator) -> FeedStart:
        with self._lock:
            return feed_start(brain.view)


class _Life:
    """One life, from reading the topic's start until the agent is lost or another claims."""

    def __init__(
        self,
        brain: Coordinator,
        client: LogAgentClient,
        feed: FeedKeeper,
        faults: Faults,
        lock: threading.Lock,
    ) -> None:
        self._brain = brain
        self._client = client
        self._feed = feed
        self._faults = faults
        self._lock = lock
        self._removals: list[str] = []
        self._next_clean_at = 0.0

    def turn(self, events: EventStream[StateEvent]) -> None:
        """Take what came, then do everything that follows from it."""
        self._take(events.next_event(WAIT_SECONDS))
        while (event := events.next_event(0)) is not None:
            self._take(event)
        while self._do(self._next_step()):
            pass
        self._clean(clock.boottime())

    def _take(self, event: StateEvent | None) -> None:
        if not isinstance(event, StateRecords):
            return
        now = clock.boottime()
        with self._lock:
            for item in event.records:
                self._brain.take(item.key, item.value, item.offset, now)

    def _next_step(self) -> Step:
        with self._lock:
            return self._brain.next_step(clock.boottime())

    def _do(self, step: Step) -> bool:
        """Do one step; return whether the next may be asked for without reading first."""
        match step.act:
            case Act.CLAIM:
                self._publish({r.key: r.value for r in step.records})
            case Act.SIGN:
                for record in step.records:
                    self._give_sign(record)
                return True
            case Act.DECIDE:
                self._decide(step.records)
            case Act.CLEAN:
                self._removals += step.keys
                return True
            case Act.FETCH_END:
                self._brain.note_end(self._client.state_end())
                return True
        return False

    def say_farewell(self) -> None:
        """Let whoever stands by take over at once."""
        sign = self._brain.farewell()
        if sign is not None:
            self._give_sign(sign)

    def _give_sign(self, sign: StateRecord) -> None:
        lag = self._feed.lag
        told = {"at": clock.now(), "feed_behind": lag.behind, "feed_behind_since": lag.since}
        self._publish({sign.key: {**sign.value, **told}})

    def _decide(self, records: Sequence[StateRecord]) -> None:
        self._faults.reach("coordinator-before-decision")
        self._publish({record.key: record.value for record in records})
        self._faults.reach("coordinator-after-decision")
        for record in records:
            _log.debug("coordinator.decided", key=record.key, **record.value)

    def _clean(self, now: float) -> None:
        """Remove what means nothing any more; what a death leaves over, the next life finds again."""
        if self._removals and now >= self._next_clean_at:
            self._next_clean_at = now + CLEAN_SECONDS
            removals, self._removals = self._removals, []
            self._publish(dict.fromkeys(removals))

    def _publish(self, values: dict[str, Any]) -> None:
        self._client.state_publish(values)


def run_coordinator(options: CoordinatorOptions, stop: threading.Event) -> None:
    """Run the coordinator's process until `stop` is set."""
    CoordinatorService(options).run(stop)
