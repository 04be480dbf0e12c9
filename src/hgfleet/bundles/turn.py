"""Whose turn it is where a fleet has several bundlers: that of the first one, as configured, that lives.

Each says that it lives by a record of the state topic, `bundler/<host>`, and waits while one before it is
heard. That two work at once for a moment does no harm, as of two manifests that replace the same one is in
force; it is only work for nothing.

A host that has come to lead the fleet has no replica any more: its bundler stands back like one that leaves.

Promises: one that has been silent for a lease by our own clock is stepped in for, one that says goodbye at
once; an only bundler waits for nobody and says nothing.
Does not: decide about repositories.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from hgfleet.adapters.agent_answers import StateEvent, StateRecords
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.errors import FleetError
from hgfleet.model.ids import HostName
from hgfleet.runtime import clock
from hgfleet.runtime.retry import Backoff

_BEATS_PER_LEASE = 4
_LOOK_SECONDS = 0.5
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """The bundlers of a fleet, in order, and which of them this is."""

    host: HostName
    bundlers: Sequence[HostName]
    agent_socket: Path
    lease_seconds: float
    may_lead: bool = False  # this host is the primary or a standby


class Turn(threading.Thread):
    """The thread that says that we live, and hears who else does."""

    def __init__(self, options: TurnOptions, stop: threading.Event) -> None:
        super().__init__(name="bundlers-turn", daemon=True)
        self._options = options
        self._stop_event = stop
        place = list(options.bundlers).index(options.host) if options.host in options.bundlers else 0
        now = clock.boottime()
        self._heard_at = dict.fromkeys(options.bundlers[:place], now)  # until a lease has shown otherwise
        self._is_alone = len(options.bundlers) < 2
        self._beaten_at = -options.lease_seconds
        self._leads = options.may_lead  # until the agent has said otherwise

    @property
    def is_ours(self) -> bool:
        """Whether none that comes before us is heard of, and we have a replica."""
        if self._leads:
            return False
        since = clock.boottime() - self._options.lease_seconds
        return all(at <= since for at in list(self._heard_at.values()))

    def run(self) -> None:
        """Speak and listen until told to stop; then say goodbye."""
        if self._is_alone and not self._options.may_lead:
            return
        backoff = Backoff(0.05, 1.0)
        while not self._stop_event.is_set():
            try:
                self._listen(backoff)
            except FleetError as error:
                _log.info("bundles.turn-unknown", reason=str(error))
                clock.sleep(backoff.next_pause())
        self._say_goodbye()

    def _listen(self, backoff: Backoff) -> None:
        with LogAgentClient(self._options.agent_socket) as client, client.state_follow() as events:
            while not self._stop_event.is_set():
                self._beat(client)
                self._take(events, backoff)

    def _beat(self, client: LogAgentClient) -> None:
        now = clock.boottime()
        if now - self._beaten_at < self._options.lease_seconds / _BEATS_PER_LEASE:
            return
        self._beaten_at = now
        if self._options.may_lead:
            had_led, self._leads = self._leads, client.hello().epoch > 0
            if self._leads and not had_led:
                _log.info("bundles.leading", host=self._options.host)
        client.state_publish({self._key: None if self._leads else {"at": clock.now()}})

    def _take(self, events: EventStream[StateEvent], backoff: Backoff) -> None:
        event = events.next_event(_LOOK_SECONDS)
        if not isinstance(event, StateRecords):
            return
        backoff.reset()
        for item in event.records:
            kind, _, host = item.key.partition("/")
            if kind == "bundler" and host in self._heard_at:
                is_new = item.value is not None and clock.now() - item.at < self._options.lease_seconds
                self._heard_at[HostName(host)] = clock.boottime() if is_new else -self._options.lease_seconds

    def _say_goodbye(self) -> None:
        with suppress(FleetError), LogAgentClient(self._options.agent_socket) as client:
            client.state_publish({self._key: None})

    @property
    def _key(self) -> str:
        return f"bundler/{self._options.host}"
