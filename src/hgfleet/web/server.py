"""The web workers of one mirror: gunicorn with threads, TLS and our application in every worker.

One thread is held for the whole of a clone, so workers times threads bounds how many run at once; what waits,
waits in the kernel's queue.

Promises: a worker that dies is replaced; SIGTERM lets requests in flight end within the given time;
forwarding headers mean nothing to the server itself; what gunicorn says is in the log like all else.
Does not: serve status or metrics, or answer on the plain port (web.redirect).
"""

from __future__ import annotations

import gc
import os
import ssl
from dataclasses import replace
from typing import Any

from gunicorn import glogging
from gunicorn.app.base import BaseApplication

from hgfleet.web.application import Application
from hgfleet.web.mercurial_ui import load_ui
from hgfleet.web.options import CloneLaneOptions, WebOptions
from hgfleet.web.worker import Worker

# Clients send the ids of many heads in headers of 1 KB, when they can't send them in a body.
_HEADERS = 4096
_HEADER_BYTES = 8190
_LINE_BYTES = 8190
# A worker that does not even turn its loop for so long hangs; requests may take as long as they like.
_HANGING_SECONDS = 120
_KEEP_ALIVE_SECONDS = 15


def run_web(options: WebOptions) -> None:
    """Serve until SIGTERM; ends the process (SystemExit) when the last worker has."""
    application = Application(options.site, load_ui(options.site))
    gc.collect()
    gc.freeze()  # what is loaded now stays for ever; the collector of a worker need not look at it
    _Server(_settings(options), application).run()


def run_clone_lane(options: CloneLaneOptions) -> None:
    """Make full clones for the web workers until SIGTERM, behind everything else that the machine does."""
    os.nice(options.niceness)
    site = replace(options.site, is_lane=True)
    application = Application(site, load_ui(site))
    gc.collect()
    gc.freeze()
    _Server(_lane_settings(options), application).run()


def _lane_settings(options: CloneLaneOptions) -> dict[str, Any]:
    return _COMMON | {
        "bind": f"unix:{options.socket}",
        "umask": 0o177,  # of its socket; it writes nothing else
        "workers": options.workers,
        "threads": options.threads,
        "graceful_timeout": 1,  # whoever waits for an answer is to end, too
        "proc_name": "hgfleet-clones",
    }


def _settings(options: WebOptions) -> dict[str, Any]:
    host = f"[{options.address}]" if ":" in options.address else options.address
    return _COMMON | {
        "bind": f"{host}:{options.port}",
        "workers": options.workers,
        "threads": options.threads,
        "certfile": str(options.certificate),
        "keyfile": str(options.key),
        "ssl_context": _ssl_context,
        "graceful_timeout": max(1, round(options.graceful_timeout_seconds)),
        "proc_name": "hgfleet-web",
    }


def _ssl_context(_config: Any, make_default: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = make_default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # web.deadlines ends what is received, and the client is still told so. What is cut short is noticed by
    # the length that each request has.
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


class _Server(BaseApplication):
    """gunicorn configured from here alone: no command line, no file, no GUNICORN_CMD_ARGS."""

    def __init__(self, settings: dict[str, Any], application: Application) -> None:
        self._settings = settings
        self._application = application
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._application


class _Logger(glogging.Logger):
    """gunicorn's own lines go where all of this process's go."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


_COMMON = {
    "worker_class": Worker,
    "do_handshake_on_connect": False,
    "timeout": _HANGING_SECONDS,
    "keepalive": _KEEP_ALIVE_SECONDS,
    "limit_request_fields": _HEADERS,
    "limit_request_field_size": _HEADER_BYTES,
    "limit_request_line": _LINE_BYTES,
    "forwarded_allow_ips": "",
    "secure_scheme_headers": {},
    "forwarder_headers": "",
    "control_socket_disable": True,
    "logger_class": _Logger,
    "loglevel": "warning",
}
