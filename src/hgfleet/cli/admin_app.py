"""What the admin listener answers: health, `/-/status`, `/-/metrics`, and a page for people at `/`.

    /-/livez    200 while the listener lives
    /-/readyz   200 while this host does its part: one that may lead accepts pushes, a mirror is in service;
                the load balancer finds the active primary by it

Promises: every answer is asked for anew; nothing that came from outside reaches a page unescaped.
Does not: know how it is served (cli.admin_process), or cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from hgfleet.adapters.serving_file import read_serving
from hgfleet.cli.fleet import Fleet
from hgfleet.cli.fleet_state import read_fleet_state
from hgfleet.cli.metrics import format_metrics
from hgfleet.cli.probes import is_agent_serving, is_answering
from hgfleet.config.layout import FleetLayout

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Answer = tuple[str, str, bytes]  # status, content type, body

_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
]
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><meta http-equiv="refresh" content="5">
<style>body{{font:15px sans-serif;margin:2em}}table{{border-collapse:collapse;margin:1em 0}}
td,th{{border:1px solid #bbb;padding:.3em .7em;text-align:left}}.bad{{color:#a00}}</style></head>
<body><h1>{title}</h1>
<p>release {release}, epoch {epoch}, {repositories} repositories; configuration {digest}</p>
{body}</body></html>
"""
_COORDINATOR = "<p>coordinator: {host}, last heard {silent_seconds} s ago</p>\n"
_FEED = "<p>feed: {behind} messages behind, for {behind_seconds} s</p>\n"
_SECTIONS = (
    ("Processes", "processes", ("name", "role", "host", "pid")),
    ("Mirrors", "members", ("host", "stage", "is_counted", "incarnation", "release")),
    ("Behind", "lag", ("repository", "lag", "applied", "watermark")),
    ("Parked", "parked", ("host", "repository", "reason")),
)


class AdminApp:
    """The WSGI application."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        status, content_type, body = self._answer(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), *_HEADERS]
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, method: str, path: str) -> Answer:
        if method not in {"GET", "HEAD"}:
            return "405 Method Not Allowed", "text/plain", b"only GET\n"
        match path:
            case "/-/livez":
                return "200 OK", "text/plain", b"alive\n"
            case "/-/readyz":
                return _readiness(self._fleet)
            case "/-/status":
                body = json.dumps(read_fleet_state(self._fleet), indent=2).encode() + b"\n"
                return "200 OK", "application/json", body
            case "/-/metrics":
                content_type = "text/plain; version=0.0.4; charset=utf-8"
                return "200 OK", content_type, format_metrics(read_fleet_state(self._fleet))
            case "/":
                page = format_page(self._fleet.config.site.name, read_fleet_state(self._fleet))
                return "200 OK", "text/html; charset=utf-8", page.encode()
        return "404 Not Found", "text/plain", b"/-/livez, /-/readyz, /-/status, /-/metrics\n"


def _readiness(fleet: Fleet) -> Answer:
    reason = unreadiness(fleet.layout)
    if reason:
        return "503 Service Unavailable", "text/plain", f"{reason}\n".encode()
    return "200 OK", "text/plain", b"ready\n"


def unreadiness(layout: FleetLayout) -> str:
    """Return why this host does not do its part now, "" when it does."""
    host = layout.own_host
    if host is not None and host.is_mirror:
        serving = read_serving(layout.agent_host.serving)
        if serving is None or not serving.is_ready():
            return f"the mirror is {serving.stage.value if serving else 'new'} and not in service"
        return ""
    if not is_agent_serving(layout.agent_socket):
        return "the log agent does not accept changes"
    return "" if is_answering(layout.sessions_socket, "status") else "the session server does not answer"


def format_page(title: str, state: dict[str, Any]) -> str:
    """Return the page for people."""
    problems = "".join(f'<p class="bad">{escape(problem)}</p>' for problem in state["problems"])
    tables = "".join(_table(heading, state.get(key, ()), names) for heading, key, names in _SECTIONS)
    return _PAGE.format(
        title=escape(title),
        release=escape(state["release"]),
        epoch=state.get("log", {}).get("epoch", "?"),
        repositories=state.get("repositories", "?"),
        digest=state["configuration_digest"][:12],
        body=problems + _lines(state) + tables,
    )


def _lines(state: dict[str, Any]) -> str:
    forms = {"coordinator": _COORDINATOR, "feed": _FEED}
    return "".join(form.format(**state[name]) for name, form in forms.items() if state.get(name))


def _table(heading: str, rows: Iterable[dict[str, Any]], names: tuple[str, ...]) -> str:
    cells = ["".join(f"<td>{escape(str(row.get(name, '')))}</td>" for name in names) for row in rows]
    if not cells:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<h2>{heading}</h2><table><tr>{head}</tr>" + "".join(f"<tr>{c}</tr>" for c in cells) + "</table>"
