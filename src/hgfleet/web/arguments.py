"""Checks of what clients send, before hgweb sees it: hgweb itself trusts much of it.

Promises: a wire command comes with its arguments or is refused; a style is one that exists and is meant for
hgweb; how much one request may ask for is bounded.
Does not: resolve names or look into a repository.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

from mercurial import wireprotov1server

from hgfleet.errors import RejectedError

STYLES = frozenset((b"gitweb", b"paper", b"coal", b"monoblue", b"spartan", b"atom", b"rss", b"raw", b"json"))
MAX_COUNT = 2000
_COUNTS = (b"revcount", b"graphtop_count", b"count")
_MAX_CONTEXT = 10_000
_ANY_NODE = b"0" * 40
_NODE = re.compile(rb"[0-9a-f]{40}")
_STATIC = b"static"  # hgweb would read files for it; ours lie at /-/static/


def is_write(command: bytes) -> bool:
    """Say whether a wire command needs more than the permission to pull; unknown commands are hgweb's."""
    known = wireprotov1server.commands.get(command)
    return known is not None and known.permission != b"pull"


def is_wire_command(command: bytes) -> bool:
    """Say whether the wire protocol answers this command and not a page."""
    return command in wireprotov1server.commands


def wire_command(query: str) -> bytes:
    """Return the value of `cmd` as hgweb will read it, b"" if there is none."""
    if "cmd=" not in query:
        return b""
    return dict(parse_pairs(query.encode("latin-1", "replace"))).get(b"cmd", b"")


def parse_pairs(query: bytes, keep_blank_values: bool = True) -> list[tuple[bytes, bytes]]:
    """Split a URL's query into names and values, in bytes.

    Stands for urllib.parse.parse_qsl in Mercurial's hands: in some releases of Python that one fails on bytes
    outside ASCII, so that nobody could ask for a bookmark or an author with an umlaut.
    """
    pairs = []
    for item in query.split(b"&"):
        name, _, value = item.partition(b"=")
        if name and (value or keep_blank_values):
            pairs.append((_unquoted(name), _unquoted(value)))
    return pairs


def parse_lists(query: bytes, keep_blank_values: bool = True) -> dict[bytes, list[bytes]]:
    """Return the values of each name; stands for urllib.parse.parse_qs."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in parse_pairs(query, keep_blank_values):
        values.setdefault(name, []).append(value)
    return values


def _unquoted(text: bytes) -> bytes:
    return urllib.parse.unquote_to_bytes(text.replace(b"+", b" "))


def bound_request(request: Any) -> None:
    """Keep a parsed request within what hgweb can answer; raise RejectedError `web.bad-argument`."""
    for name in _COUNTS:
        if name in request.qsparams:
            request.qsparams[name] = b"%d" % min(_number(request.qsparams[name], name), MAX_COUNT)
    if b"context" in request.qsparams and request.qsparams[b"context"] != b"full":
        value = min(_number(request.qsparams[b"context"], b"context"), _MAX_CONTEXT)
        request.qsparams[b"context"] = b"%d" % value
    if _NODE.fullmatch(request.qsparams.get(b"graphtop", _ANY_NODE)) is None:
        raise RejectedError("web.bad-argument", "graphtop is not a changeset id")
    first = request.dispatchparts[0] if request.dispatchparts else b""
    style, dash, page = first.rpartition(b"-")
    styles = [request.qsparams.get(b"style"), style if dash else None]
    is_known = all(name in STYLES for name in styles if name is not None)
    if not is_known or _STATIC in (page, request.qsparams.get(b"cmd")):
        raise RejectedError("web.bad-argument", "no such page or style", status=404)


def _number(text: bytes, name: bytes) -> int:
    if not text.isdigit() or len(text) > 9:
        raise RejectedError("web.bad-argument", f"{name.decode()} is not a number")
    return int(text)


def wire_arguments(environ: dict[str, Any], query: str, body: bytes) -> dict[bytes, bytes]:
    """Return a wire command's arguments as hgweb will read them: of the URL, of headers and of the body."""
    pairs = parse_pairs(query.encode("latin-1", "replace"))
    parts: list[str] = []
    while (part := environ.get(f"HTTP_X_HGARG_{len(parts) + 1}")) is not None:
        parts.append(part)
    pairs += parse_pairs("".join(parts).encode("latin-1", "replace"))
    length = environ.get("HTTP_X_HGARGS_POST", "0")
    if length.isascii() and length.isdigit():
        pairs += parse_pairs(body[: int(length[:12])])
    return dict(pairs)
