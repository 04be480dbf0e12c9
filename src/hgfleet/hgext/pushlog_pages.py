"""The pushlog over HTTP, as commands of hgweb: json-pushes, pushlog (Atom) and pushloghtml.

Promises: every word that came from a person is escaped where it is shown, user names included; a bad
value is 400, an unknown changeset 404, in the form that was asked for.
Does not: decide which pushes fit (hgext.pushlog_answers).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from typing import Any

from mercurial.hgweb import webcommands

from hgfleet.errors import RejectedError
from hgfleet.hgext import pushlog_answers
from hgfleet.hgext.pushlog_answers import ShownPush
from hgfleet.model.pushlog_query import next_query, parse_page, parse_push_query

_FEED_CHANGESETS = 200  # entries in one feed, and rows of one push on a page
_STATUS = {400: b"400 Bad Request", 404: b"404 Not Found"}

WebCommand = Callable[[Any], Iterable[bytes]]


def register() -> None:
    """Make the commands known to hgweb. Once per process."""
    for name, command in (("pushes", json_pushes), ("pushlog", feed), ("pushloghtml", page)):
        webcommands.webcommand(name.encode())(command)
        setattr(webcommands, name, command)


def json_pushes(web: Any) -> Iterable[bytes]:
    """/json-pushes: see COMPAT in the documentation of this interface, docs/design/reading.md."""
    try:
        return _json_pushes(web)
    except RejectedError as error:
        return _send(web, _json({"error": error.message}), b"application/json", status=error.status)


def _json_pushes(web: Any) -> Iterable[bytes]:
    asked = _query(web)
    query = parse_push_query(asked)
    found = pushlog_answers.answer(web.repo, query)
    pushes = {
        str(shown.push.push_id): pushlog_answers.to_json(web.repo, shown, query) for shown in found.pushes
    }
    value: dict[str, Any] = pushes
    if query.version == 2:
        value = {"lastpushid": found.last_id, "pushes": pushes}
    if found.next_after is not None:
        following = f"{_base_url(web)}/json-pushes?{next_query(asked, found.next_after)}"
        web.res.headers[b"Link"] = f'<{following}>; rel="next"'.encode()
    return _send(web, _json(value), b"application/json")


def feed(web: Any) -> Iterable[bytes]:
    """/pushlog[/{page}]: an Atom feed, one entry per changeset, the newest first."""
    shown_pushes, _number = _asked_pushes(web)
    base = _base_url(web)
    entries = [
        _entry(web.repo[rev], shown, base)
        for shown in shown_pushes
        for rev in reversed(shown.revs[-_FEED_CHANGESETS:])
    ][:_FEED_CHANGESETS]
    updated = _iso(shown_pushes[0].push.at) if shown_pushes else _iso(0)
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">\n'
        f" <id>{escape(base)}/pushlog</id>\n"
        f' <link rel="self" href="{escape(base)}/pushlog"/>\n'
        f' <link rel="alternate" href="{escape(base)}/pushloghtml"/>\n'
        f" <title>{escape(_name(web))} Pushlog</title>\n <updated>{updated}</updated>\n"
        f"{''.join(entries)}</feed>\n"
    )
    return _send(web, document.encode(), b"application/atom+xml; charset=UTF-8")


def _entry(ctx: Any, shown: ShownPush, base: str) -> str:
    node = ctx.hex().decode()
    files = "".join(f"<li>{escape(_text(name))}</li>" for name in ctx.files()[:_FEED_CHANGESETS])
    return (
        f" <entry>\n  <title>Changeset {node}</title>\n  <id>{escape(base)}/#changeset-{node}</id>\n"
        f'  <link href="{escape(base)}/rev/{node}"/>\n  <updated>{_iso(shown.push.at)}</updated>\n'
        f"  <author><name>{_xml(shown.push.pusher)}</name></author>\n"
        '  <content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">'
        f"<p>{_xml(_text(ctx.description()))}</p>"
        f'<ul class="filelist">{_xml_only(files)}</ul></div></content>\n </entry>\n'
    )


def page(web: Any) -> Iterable[bytes]:
    """/pushloghtml[/{page}]: the pushes for people, the newest first."""
    shown_pushes, number = _asked_pushes(web)
    rows = "".join(_rows(web.repo, shown, _path(web)) for shown in shown_pushes)
    is_last = not shown_pushes or shown_pushes[-1].push.push_id == 1
    name = escape(_name(web))
    static = escape(_text(web.config(b"web", b"staticurl") or b"/static/"))
    document = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: pushlog</title>\n"
        f'<link rel="alternate" type="application/atom+xml" href="{escape(_path(web))}/pushlog">\n'
        f'<link rel="stylesheet" href="{static}hgfleet.css">\n</head>\n<body>\n<main>\n'
        f'<h1><a href="/">Repositories</a> / <a href="{escape(_path(web))}/">{name}</a> / pushlog</h1>\n'
        '<table>\n<thead><tr><th scope="col">Push</th><th scope="col">Changeset</th>'
        f'<th scope="col">Description</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n'
        f"{_links(web, number, is_last=is_last)}</main>\n</body>\n</html>\n"
    )
    return _send(web, document.encode(), b"text/html; charset=UTF-8")


def _rows(repo: Any, shown: ShownPush, path: str) -> str:
    revs = shown.revs[::-1][:_FEED_CHANGESETS]
    push = shown.push
    cell = (
        f'<th scope="rowgroup" rowspan="{max(len(revs), 1)}">{push.push_id}<br>{escape(push.pusher)}<br>'
        f'<time datetime="{_iso(push.at)}">{_iso(push.at).replace("T", " ").replace("Z", " UTC")}</time></th>'
    )
    cells = [_changeset_cells(repo[rev], path) for rev in revs] or ["<td></td><td>no longer visible</td>"]
    return "".join(f"<tr>{cell if not place else ''}{row}</tr>\n" for place, row in enumerate(cells))


def _changeset_cells(ctx: Any, path: str) -> str:
    lines = _text(ctx.description()).splitlines()
    first, author = (lines[0] if lines else ""), _text(ctx.user())
    node = ctx.hex().decode()
    return (
        f'<td><a href="{escape(path)}/rev/{node}">{node[:12]}</a></td>'
        f"<td>{escape(first)}<br><em>{escape(author)}</em></td>"
    )


def _links(web: Any, number: int, *, is_last: bool) -> str:
    if _query(web):
        return ""
    path = escape(_path(web))
    newer = f'<a rel="prev" href="{path}/pushloghtml/{number - 1}">Newer</a>' if number > 1 else ""
    older = "" if is_last else f'<a rel="next" href="{path}/pushloghtml/{number + 1}">Older</a>'
    return f'<nav aria-label="Pages">{newer} {older}</nav>\n'


def _asked_pushes(web: Any) -> tuple[list[ShownPush], int]:
    """Return the pushes of a page, or those that a query asks for, newest first, and the page's number.

    Raises hgweb's ErrorResponse, which is answered with a page.
    """
    try:
        number = parse_page(_text(web.req.qsparams.get(b"node", b"")))
        query = parse_push_query(_query(web))
        if query.is_open:
            return pushlog_answers.page(web.repo, number), number
        return pushlog_answers.answer(web.repo, query).pushes[::-1], number
    except RejectedError as error:
        raise webcommands.ErrorResponse(error.status, error.message.encode()) from error


def _query(web: Any) -> str:
    return _text(web.req.querystring)


def _base_url(web: Any) -> str:
    return _text(web.req.advertisedbaseurl) + _path(web)


def _path(web: Any) -> str:
    return _text(web.req.apppath).rstrip("/")


def _name(web: Any) -> str:
    return _text(web.reponame or b"")


def _send(web: Any, body: bytes, kind: bytes, *, status: int = 200) -> Iterable[bytes]:
    if status in _STATUS:
        web.res.status = _STATUS[status]
    web.res.headers[b"Content-Type"] = kind
    web.res.setbodybytes(body)
    sent: Iterable[bytes] = web.res.sendresponse()
    return sent


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _xml(text: str) -> str:
    """Escape, and leave out what XML may not contain even escaped."""
    return _xml_only(escape(text))


def _xml_only(text: str) -> str:
    return "".join(character for character in text if character >= " " or character in "\t\n\r")
