"""The list of repositories, for people and for programs.

Promises: one page costs the same with ten repositories or ten thousand; names and descriptions are escaped.
Does not: open repositories: the small file with the exposed view says what is shown.
"""

from __future__ import annotations

import html
import urllib.parse
from dataclasses import dataclass
from typing import Any

from hgfleet.adapters import view_files
from hgfleet.errors import RejectedError
from hgfleet.web.answers import Answer, Headers, json_answer, page
from hgfleet.web.catalogue import Catalogue, Served
from hgfleet.web.options import SiteOptions
from hgfleet.web.repositories import Repositories

PAGE_SIZE = 100
_JSON_PAGE_SIZE = 1000
_MAX_PAGE = 1_000_000


@dataclass(frozen=True, slots=True)
class Listing:
    """What part of the list is asked for."""

    under: str
    word: str
    page: int  # from 1


def parse_listing(under: str, query: str) -> Listing:
    """Check the query; raise RejectedError `web.bad-argument`."""
    values = dict(urllib.parse.parse_qsl(query))
    number = values.get("page", "1")
    if not number.isascii() or not number.isdigit() or not 1 <= int(number[:9]) <= _MAX_PAGE:
        raise RejectedError("web.bad-argument", "page is not a number")
    return Listing(under.strip("/"), values.get("q", "")[:200], int(number[:9]))


class Index:
    """Renders the list."""

    def __init__(self, site: SiteOptions, catalogue: Catalogue, repositories: Repositories) -> None:
        self._site = site
        self._catalogue = catalogue
        self._repositories = repositories

    def as_json(self, listing: Listing) -> Answer:
        """Answer a program: a bounded part of the list, the next part is named by a Link header."""
        rows, has_more = self._rows(listing, _JSON_PAGE_SIZE)
        headers: Headers = []
        if has_more:
            query = urllib.parse.urlencode({"q": listing.word, "page": listing.page + 1})
            headers.append(("Link", f'<{self._site.base_url}/-/repositories.json?{query}>; rel="next"'))
        return json_answer(200, {"repositories": [self._fields(row) for row in rows]}, headers)

    def as_page(self, listing: Listing) -> Answer | None:
        """Answer a person; None if nothing at all lies under the asked path."""
        rows, has_more = self._rows(listing, PAGE_SIZE)
        if not rows and listing.under:
            return None
        title = f"{listing.under} – {self._site.site_name}" if listing.under else self._site.site_name
        return page(200, title, self._content(listing, rows, has_more))

    def _rows(self, listing: Listing, size: int) -> tuple[list[Served], bool]:
        offset = (listing.page - 1) * size
        rows = self._catalogue.list(under=listing.under, word=listing.word, limit=size + 1, offset=offset)
        return rows[:size], len(rows) > size

    def _fields(self, served: Served) -> dict[str, Any]:
        root = self._repositories.root(served.repository)
        view = view_files.read_exposed(root / ".hg") if root is not None else None
        return {
            "path": served.path,
            "url": f"{self._site.base_url}/{served.path}",
            "description": view.settings.description if view is not None else "",
            "seq": view.seq if view is not None else 0,
            "parked": served.parked_reason is not None,
        }

    def _content(self, listing: Listing, rows: list[Served], has_more: bool) -> str:
        name = html.escape(self._site.site_name)
        heading = f'<a href="/">{name}</a> / {html.escape(listing.under)}' if listing.under else name
        rendered = "\n".join(_row(self._fields(row)) for row in rows)
        columns = "".join(f'<th scope="col">{name}</th>' for name in ("Repository", "Description", "Pushes"))
        table = f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{rendered}\n</tbody>\n</table>"
        return (
            f"<h1>{heading}</h1>\n"
            '<form role="search" method="get"><label for="q">Find</label> '
            f'<input type="search" id="q" name="q" value="{html.escape(listing.word)}"> '
            "<button>Search</button></form>\n"
            f"{table if rows else '<p>No repositories.</p>'}\n{_pages(listing, has_more)}"
            '<footer><a href="/-/bundles/">Clone bundles</a></footer>\n'
        )


def _row(fields: dict[str, Any]) -> str:
    path, description = html.escape(fields["path"]), html.escape(fields["description"])
    note = " <em>(not available here at the moment)</em>" if fields["parked"] else ""
    link = f'<a href="/{path}/pushloghtml" aria-label="pushes to {path}">pushlog</a>'
    name = f'<th scope="row"><a href="/{path}/">{path}</a></th>'
    return f"<tr>{name}<td>{description}{note}</td><td>{link}</td></tr>"


def _pages(listing: Listing, has_more: bool) -> str:
    links = []
    if listing.page > 1:
        links.append(_link(listing, listing.page - 1, "prev", "Previous"))
    if has_more:
        links.append(_link(listing, listing.page + 1, "next", "Next"))
    return f'<nav aria-label="Pages">{" ".join(links)}</nav>' if links else ""


def _link(listing: Listing, number: int, relation: str, label: str) -> str:
    query = urllib.parse.urlencode({"q": listing.word, "page": number})
    return f'<a rel="{relation}" href="?{html.escape(query)}">{label}</a>'
