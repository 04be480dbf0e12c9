"""The applier's ears: threads that follow the log agent, over its restarts, and hand on what they hear.

Promises: after every reconnect the first thing handed on is `Connected`, then the stream from its start; what
was heard before may be heard again.
Does not: interpret events.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from hgfleet.adapters.agent_answers import FollowEvent, StateEvent
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.errors import InDoubtError, TransientError
from hgfleet.runtime import clock
from hgfleet.runtime.retry import Backoff

EXIT_STATUS = 70


class Source(Enum):
    """Which stream."""

    LOG = "log"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Connected:
    """The stream begins anew."""

    source: Source


@dataclass(frozen=True, slots=True)
class Lost:
    """The agent is gone; the thread goes on trying."""

    source: Source
    reason: str


Heard = Connected | Lost | FollowEvent | StateEvent


def follow_log(client: LogAgentClient, hand_on: Callable[[Heard], None]) -> threading.Thread:
    """Start following what counts in the log."""
    return _start(Source.LOG, client.follow, hand_on)


def follow_state(client: LogAgentClient, hand_on: Callable[[Heard], None]) -> threading.Thread:
    """Start following the state topic."""
    return _start(Source.STATE, client.state_follow, hand_on)


def end_process_when_a_thread_dies() -> None:
    """Let what no thread expected end the whole process: a dead thread would go unnoticed."""

    def end(unexpected: threading.ExceptHookArgs) -> None:
        traceback.print_exception(unexpected.exc_type, unexpected.exc_value, unexpected.exc_traceback)
        os._exit(EXIT_STATUS)

    threading.excepthook = end


def _start(
    source: Source,
    connect: Callable[[], EventStream[FollowEvent]] | Callable[[], EventStream[StateEvent]],
    hand_on: Callable[[Heard], None],
) -> threading.Thread:
    def listen() -> None:
        backoff = Backoff(0.05, 1.0)
        while True:
            try:
                with connect() as events:
                    hand_on(Connected(source))
                    for event in events:
                        backoff.reset()
                        hand_on(event)
            except (TransientError, InDoubtError) as error:
                hand_on(Lost(source, str(error)))
            clock.sleep(backoff.next_pause())

    thread = threading.Thread(target=listen, name=f"follow-{source.value}", daemon=True)
    thread.start()
    return thread
