"""PROXY headers: what is read, and that nothing else gets through, whatever comes."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgfleet.adapters.proxy_protocol import MAX_BYTES, SIGNATURE, ProxyHeader, plain_address, read_header
from hgfleet.errors import PoisonError

ADDRESSES = st.ip_addresses()


def read(data: bytes) -> tuple[ProxyHeader, int]:
    """Feed the reader and return the header and how many bytes it took; EOFError when it wants more."""
    reader, taken = read_header(), 0
    wanted = next(reader)
    while True:
        part = data[taken : taken + wanted]
        if len(part) < wanted:
            raise EOFError
        taken += wanted
        try:
            wanted = reader.send(part)
        except StopIteration as end:
            return end.value, taken


def version_2(address: ipaddress.IPv4Address | ipaddress.IPv6Address, extensions: bytes = b"") -> bytes:
    family = 0x11 if address.version == 4 else 0x21
    body = address.packed * 2 + struct.pack("!HH", 40000, 22) + extensions
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(body)) + body


def usual(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return plain_address(str(address))


@given(ADDRESSES, st.binary(max_size=100))
def test_the_first_version_names_the_client_and_takes_nothing_behind_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, rest: bytes
) -> None:
    header = f"PROXY TCP{address.version} {address} {address} 40000 22\r\n".encode()
    assert read(header + rest) == (ProxyHeader(usual(address)), len(header))


@given(ADDRESSES, st.binary(max_size=300), st.binary(max_size=100))
def test_the_second_version_names_the_client_and_takes_nothing_behind_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, extensions: bytes, rest: bytes
) -> None:
    header = version_2(address, extensions)
    assert read(header + rest) == (ProxyHeader(usual(address)), len(header))


@pytest.mark.parametrize("header", [SIGNATURE + b"\x20\0\0\0", SIGNATURE + b"\x20\x11\0\x0c" + bytes(12)])
def test_a_load_balancers_own_look_has_no_client(header: bytes) -> None:
    assert read(header) == (ProxyHeader(None), len(header))


def test_an_unknown_client_of_the_first_version_is_none() -> None:
    assert read(b"PROXY UNKNOWN\r\n")[0] == ProxyHeader(None)
    assert read(b"PROXY UNKNOWN whatever it says\r\n")[0] == ProxyHeader(None)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda rest: b"PROXY TCP4 " + rest)))
def test_garbage_is_refused_or_waited_for_within_bounds(data: bytes) -> None:
    try:
        header, taken = read(data)
    except (PoisonError, EOFError):
        return
    assert taken <= MAX_BYTES + len(SIGNATURE) + 4
    assert header.client_address is None or ipaddress.ip_address(header.client_address)


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300))
def test_garbage_behind_the_signature_is_refused_or_waited_for(fixed: bytes, body: bytes) -> None:
    try:
        header, _ = read(SIGNATURE + fixed + body)
    except (PoisonError, EOFError):
        return
    assert header.client_address is None or ipaddress.ip_address(header.client_address)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 fe80::1%x 1::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY  1.2.3.4 1.2.3.4 1 2\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(PoisonError) as refused:
        read(line)
    assert refused.value.code == "proxy.bad-header"


def test_an_ipv4_client_on_an_ipv6_socket_is_named_as_ipv4() -> None:
    assert plain_address("::ffff:192.0.2.7") == "192.0.2.7"
    assert plain_address("fe80::1%eth0") == "fe80::1"
