"""The admin listener: status as JSON, metrics for Prometheus, a page for people.

It is a process of its own: gunicorn needs the main thread of one, and a slow reader of a status page must
not delay a decision. On one machine the coordinator starts it, on a host of several `hgfleet run`. It asks
the log agent for every answer and holds no state.

Promises: beside a coordinator it lives as long as that and is started again when it ends; it listens on the
admin address only, never on a port that readers use.
Does not: change anything, or answer for other hosts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from hgfleet.adapters.processes import Program, start
from hgfleet.cli.addresses import admin_listener
from hgfleet.cli.fleet import Fleet, Place
from hgfleet.cli.process_command import process_command
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import TransientError
from hgfleet.runtime.retry import Backoff

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.2
_THREADS = 16
_CONNECTIONS = 64
_STOP_SECONDS = 3.0


@contextmanager
def start_admin(config_path: Path, directory: Path, stop: threading.Event) -> Iterator[None]:
    """Keep the admin process running while the block runs; `stop` ends it early."""
    program = Program(process_command("admin", config=config_path, directory=directory, name="admin"))
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(program, stop, ended), name="admin-keeper")
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def _keep(program: Program, stop: threading.Event, ended: threading.Event) -> None:
    """Restart the process whenever it ends. It dies with this thread, so this thread waits for it."""
    backoff = Backoff(0.2, 5.0)
    while not (stop.is_set() or ended.is_set()):
        try:
            child = start(program)
        except TransientError as error:
            log.warning("admin.not-started", reason=str(error))
            stop.wait(backoff.next_pause())
            continue
        while child.wait(_POLL_SECONDS) is None:
            if stop.is_set() or ended.is_set():
                child.stop(_STOP_SECONDS)
        child.close()
        if not (stop.is_set() or ended.is_set()):
            log.warning("admin.ended")
            stop.wait(backoff.next_pause())


def run_admin(config: FleetConfig, place: Place) -> int:
    """Serve until told to stop; return the exit status."""
    from gunicorn.app.base import BaseApplication

    from hgfleet.adapters.parent_death import die_with_parent
    from hgfleet.cli.admin_app import AdminApp
    from hgfleet.web.worker import PromptWorker

    class AdminWorker(PromptWorker):
        """Operators and balancers are near, and have little to say."""

        head_seconds = 2.0

    listener = admin_listener(Fleet(place, config).layout)
    settings = {
        "bind": _socket_address(listener.address, listener.port),
        "worker_class": AdminWorker,
        "workers": 1,
        "threads": _THREADS,
        "worker_connections": _CONNECTIONS,
        "timeout": 0,
        "graceful_timeout": 2,
        "loglevel": "warning",
        "control_socket_disable": True,
        "post_fork": lambda _arbiter, _worker: die_with_parent(),
    }

    class Listener(BaseApplication):
        """Gunicorn, configured from our configuration and nothing else."""

        def init(self, parser: Any, opts: Any, args: Any) -> None:
            """Take nothing from a command line."""

        def load_config(self) -> None:
            for name, value in settings.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return AdminApp(Fleet(place, config))

    Listener().run()
    return 0


def _socket_address(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
