"""Answers of the application's own: status, headers and body, and the headers that every answer carries.

Promises: whatever is shown of a client's words is escaped; every answer, also one of hgweb's, has the
security headers; a refusal tells a person what is going on and an hg client the same in its status line.
Does not: know repositories.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]

_NOTHING = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
OWN_CSP = f"{_NOTHING}; style-src 'self'; img-src 'self'"
# hgweb's pages: their inline scripts carry a nonce of their own, their graphs inline styles.
HGWEB_CSP = (
    f"{_NOTHING}; script-src 'self' 'nonce-%nonce%'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'"
)
_SECURITY = {
    "Content-Security-Policy": OWN_CSP,
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_MAX_REASON = 200
_BODY_TAG = re.compile(rb"<body[^>]*>")
_STALE_NOTE = (
    b'<p role="alert"><strong>No mirror is up to date at the moment. '
    b"This page may be older than what you saw before.</strong></p>"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer."""

    status: str
    body: bytes = b""
    headers: Headers = field(default_factory=list)

    def send(self, start: StartResponse) -> Iterable[bytes]:
        """Give it to the server."""
        length = ("Content-Length", str(len(self.body)))
        start(self.status, secured([*self.headers, length]))
        return [self.body]


def secured(headers: Headers) -> Headers:
    """Add the security headers that are not there yet."""
    present = {name.lower() for name, _ in headers}
    return headers + [(name, value) for name, value in _SECURITY.items() if name.lower() not in present]


def text(status: int, message: str, headers: Headers | None = None) -> Answer:
    """Answer a program in plain text; the message is also the reason in the status line."""
    own = [("Content-Type", "text/plain; charset=utf-8"), *(headers or [])]
    return Answer(status_line(status, message), f"{message}\n".encode(), own)


def json_answer(status: int, value: Any, headers: Headers | None = None) -> Answer:
    """Answer a program in JSON."""
    own = [("Content-Type", "application/json"), *(headers or [])]
    return Answer(status_line(status), json.dumps(value).encode() + b"\n", own)


def page(status: int, title: str, content: str, headers: Headers | None = None) -> Answer:
    """Answer a person; `content` is HTML, everything else is escaped."""
    document = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<link rel="stylesheet" href="/-/static/hgfleet.css">\n'
        f"</head>\n<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )
    own = [("Content-Type", "text/html; charset=utf-8"), *(headers or [])]
    return Answer(status_line(status), document.encode(), own)


def marked_stale(answer: Answer) -> Answer:
    """Tell a person that a page may be old; programs see it in the header that the load balancer adds."""
    kinds = [value for name, value in answer.headers if name.lower() == "content-type"]
    if not kinds or not kinds[0].startswith("text/html"):
        return answer
    return replace(answer, body=_BODY_TAG.sub(rb"\g<0>" + _STALE_NOTE, answer.body, count=1))


def refusal(status: int, message: str, *, is_person: bool, headers: Headers | None = None) -> Answer:
    """Say why a request is not served."""
    if not is_person:
        return text(status, message, headers)
    content = f'<h1>{html.escape(message)}</h1>\n<p><a href="/">All repositories</a></p>'
    answer = page(status, message, content, headers)
    return Answer(status_line(status, message), answer.body, answer.headers)


def status_line(status: int, reason: str = "") -> str:
    """Return code and reason; hg shows its user the reason of a failure."""
    phrase = reason or HTTPStatus(status).phrase
    return f"{status} {''.join(c if ' ' <= c <= '~' else '?' for c in phrase)[:_MAX_REASON]}"
