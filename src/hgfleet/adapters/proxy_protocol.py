"""Reads the header with which a load balancer names the client's address: PROXY protocol, version 1 and 2.

The format is that of HAProxy's doc/proxy-protocol.txt. It stands before the first byte of the connection; a
reader must not take a byte more, because what follows belongs to the server behind.

Promises: pure; whatever the bytes and however they are split, a header is returned or PoisonError
`proxy.bad-header` is raised after at most MAX_BYTES.
Does not: read sockets, or decide whom to believe.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Generator
from dataclasses import dataclass

from hgfleet.errors import PoisonError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_LINE_BYTES = 107
MAX_BYTES = 4096  # of version 2: addresses need 216 at most, the rest is extensions
_FIXED = struct.Struct("!BBH")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES_BY_FAMILY = {0x11: 4, 0x21: 16}  # TCP over IPv4 and IPv6


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Who the client is; None: the load balancer itself, which looks whether the server is well."""

    client_address: str | None


Reader = Generator[int, bytes, ProxyHeader]


def read_header() -> Reader:
    """Yield how many bytes are wanted, to be sent exactly those, and return the header."""
    start = yield len(SIGNATURE)
    if start == SIGNATURE:
        return (yield from _read_binary())
    return (yield from _read_line(start))


def _read_binary() -> Reader:
    version_and_command, family, size = _FIXED.unpack((yield _FIXED.size))
    if version_and_command not in {_LOCAL, _PROXY} or size > MAX_BYTES:
        raise _bad()
    body = (yield size) if size else b""
    if version_and_command == _LOCAL:
        return ProxyHeader(None)
    address_size = _ADDRESS_BYTES_BY_FAMILY.get(family)
    if address_size is None or len(body) < 2 * address_size + 4:  # two addresses and two ports
        raise _bad()
    return ProxyHeader(plain_address(body[:address_size]))


def _read_line(line: bytes) -> Reader:
    if not line.startswith(b"PROXY "):
        raise _bad()
    while not line.endswith(b"\r\n"):
        if len(line) >= MAX_LINE_BYTES:
            raise _bad()
        line += yield 1
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(None)
    if len(words) != 6 or words[1] not in {b"TCP4", b"TCP6"} or b"%" in words[2]:
        raise _bad()
    return ProxyHeader(plain_address(words[2].decode("ascii", "replace")))


def plain_address(address: str | bytes) -> str:
    """Return an address in its usual form, IPv4 as such even where it came as IPv6; raise PoisonError."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise _bad() from error
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed))  # without a scope: it is any text
    return str(parsed)


def _bad() -> PoisonError:
    return PoisonError("proxy.bad-header", "a trusted proxy's connection starts without its header")
