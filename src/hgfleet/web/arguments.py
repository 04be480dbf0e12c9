"""Checks of what clients send, before hgweb sees it: hgweb itself trusts much of it.

Promises: a wire command comes with its arguments or is refused; a style is one that exists and is meant for
hgweb; how much one request may ask for is bounded.
Does not: resolve names or look into a repository.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

from mercurial import wireprotov1server

from hgfleet.errors import RejectedError

STYLES = frozenset((b"gitweb", b"paper", b"coal", b"monoblue", b"spartan", b"atom", b"rss", b"raw", b"json"))
MAX_COUNT = 2000
_COUNTS = (b"revcount", b"graphtop_count", b"count")
_MAX_CONTEXT = 10_000


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
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    return dict(pairs).get("cmd", "").encode("latin-1")


def bound_request(request: Any) -> None:
    """Keep a parsed request within what hgweb can answer; raise RejectedError `web.bad-argument`."""
    for name in _COUNTS:
        if name in request.qsparams:
            request.qsparams[name] = b"%d" % min(_number(request.qsparams[name], name), MAX_COUNT)
    if b"context" in request.qsparams and request.qsparams[b"context"] != b"full":
        value = min(_number(request.qsparams[b"context"], b"context"), _MAX_CONTEXT)
        request.qsparams[b"context"] = b"%d" % value
    if request.qsparams.get(b"style", b"paper") not in STYLES:
        raise RejectedError("web.bad-argument", "no such style")


def _number(text: bytes, name: bytes) -> int:
    if not text.isdigit() or len(text) > 9:
        raise RejectedError("web.bad-argument", f"{name.decode()} is not a number")
    return int(text)
