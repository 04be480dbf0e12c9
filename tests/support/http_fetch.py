"""One HTTP request over a connection that the caller makes: also from another network's namespace."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

ANSWER_SECONDS = 30.0
Connect = Callable[[str, int], socket.socket]


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer; names of headers in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]


def fetch(
    connect: Connect, url: str, ca_file: str, *, method: str = "GET", headers: Mapping[str, str]
) -> Reply:
    """Ask once; raise OSError when nobody answers."""
    parts = urlsplit(url)
    host, is_tls = parts.hostname or "", parts.scheme == "https"
    connection = http.client.HTTPConnection(host, parts.port, timeout=ANSWER_SECONDS)
    with closing(connection):
        opened = connect(host, parts.port or (443 if is_tls else 80))
        opened.settimeout(ANSWER_SECONDS)
        connection.sock = _secured(opened, host, ca_file) if is_tls else opened
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, headers={"Host": parts.netloc, **headers})
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, answer.read(), names)


def _secured(connection: socket.socket, host: str, ca_file: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=ca_file)
    return context.wrap_socket(connection, server_hostname=host)
