"""How a daemon of threads learns that it shall end.

Promises: after `stop_on_signals()` SIGTERM and SIGINT set the event and do nothing else, so the unit in hand
is finished; a second signal changes nothing.
Does not: end threads, or serve asyncio programs (an event loop has its own signal handlers).
"""

from __future__ import annotations

import signal
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """Return an event that the stop signals set. Call it once, in the main thread."""
    stop = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
