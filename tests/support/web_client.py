"""Asks the WSGI application in this process, as gunicorn would."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hgfleet.web.application import Application
from hgfleet.web.mercurial_ui import load_ui
from hgfleet.web.options import SiteOptions

_uis: list[Any] = []


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client got."""

    status: int
    reason: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class WebClient:
    """One application and what is sent to it."""

    def __init__(self, site: SiteOptions) -> None:
        if not _uis:  # our extension is loaded once per process
            _uis.append(load_ui(site))
        self.application = Application(site, _uis[0])

    def get(self, url: str, *, method: str = "GET", body: bytes = b"", **environ: str) -> Reply:
        """Ask for a URL's path and query; further variables of the environment by name."""
        path, _, query = url.partition("?")
        return self.ask(path, query, method=method, body=body, **environ)

    def ask(self, path: str, query: str, *, method: str = "GET", body: bytes = b"", **environ: str) -> Reply:
        """Send a request whose path is unquoted already, as servers hand it on."""
        heads: list[tuple[str, list[tuple[str, str]]]] = []
        written = io.BytesIO()

        def start(status: str, headers: list[tuple[str, str]], _failure: Any = None) -> Any:
            heads.append((status, headers))
            return written.write

        given = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "internal",
            "SERVER_PORT": "8443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(body),
            **environ,
        }
        chunks: Iterable[bytes] = self.application(given, start)
        for chunk in chunks:
            written.write(chunk)
        assert len(heads) == 1, (path, query, heads)
        status, _, reason = heads[0][0].partition(" ")
        headers = {name.lower(): value for name, value in heads[0][1]}
        assert len(headers) == len(heads[0][1]), heads
        return Reply(int(status), reason, headers, written.getvalue())
