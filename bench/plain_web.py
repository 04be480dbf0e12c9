"""Plain Mercurial over HTTPS: hgwebdir, or one hgweb, under gunicorn with the same settings.

Run as a program: `python -m bench.plain_web REPOSITORIES CERTIFICATE KEY WORKERS THREADS KIND` prints its
port once it listens. `hgwebdir` is what one installs for more than one repository; `hgweb` serves one,
which it keeps open.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication


class PlainWeb(BaseApplication):
    """gunicorn with Mercurial's own application."""

    def __init__(self, application: Any, options: dict[str, Any]) -> None:
        self._application = application
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._application


def make_application(repositories: Path, kind: str) -> Any:
    """Return Mercurial's own WSGI application for a directory of repositories."""
    from mercurial import hgweb

    if kind == "hgweb":
        [one] = repositories.glob("*/.hg")
        return hgweb.hgweb(bytes(one.parent))
    config = repositories.parent / "hgwebdir.conf"
    config.write_text(f"[paths]\n/ = {repositories}/*\n")
    return hgweb.hgwebdir(bytes(config))


def main(arguments: list[str]) -> None:
    """Listen on a free port, print it, serve until killed."""
    repositories, certificate, key, workers, threads, kind = arguments
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    options = {
        "bind": f"fd://{listener.detach()}",
        "certfile": certificate,
        "control_socket_disable": True,
        "do_handshake_on_connect": False,
        "keyfile": key,
        "keepalive": 15,
        "limit_request_field_size": 8190,
        "loglevel": "warning",
        "preload_app": True,
        "threads": int(threads),
        "worker_class": "gthread",
        "workers": int(workers),
        "when_ready": lambda _server: print(port, flush=True),
    }
    PlainWeb(make_application(Path(repositories), kind), options).run()


if __name__ == "__main__":
    main(sys.argv[1:])
