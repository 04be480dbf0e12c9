"""The words of HAProxy's configuration: names, addresses, paths and times, each confined to its place.

Promises: a value is formatted so that HAProxy reads exactly it, or refused with `haproxy.bad-value`.
Does not: know which words the configuration is made of (haproxy_config and haproxy_ssh do).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hgfleet.errors import ConfigError

Section = list[str]


def format_sections(sections: Iterable[Section]) -> str:
    """Return the configuration's text: the first line of each section opens it."""
    return "\n".join(
        "\n".join([lines[0], *(f"    {line}" for line in lines[1:])]) + "\n" for lines in sections
    )


def name(text: str) -> str:
    """Pass a host name or a server's name, which must not need quoting."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is None:
        raise _bad_value(text)
    return text


def address(host: str, port: int) -> str:
    """Format an IPv4 or IPv6 address or a host name, with its port."""
    return f"{host_address(host)}:{port}"


def host_address(host: str) -> str:
    """Format an IPv4 or IPv6 address or a host name."""
    if re.fullmatch(r"[0-9a-fA-F:.]+:[0-9a-fA-F:.]*", host):
        return f"ipv6@[{host}]"
    return name(host)


def word(path: Path) -> str:
    """Format a file's path as one word; within single quotes HAProxy takes every character as it is."""
    text = str(path)
    if re.search(r"['\x00-\x1f\x7f]", text):
        raise _bad_value(text)
    return f"'{text}'"


def milliseconds(seconds: float) -> str:
    """Format a time, at least one millisecond: 0 means none to HAProxy."""
    return f"{max(1, round(seconds * 1000))}ms"


def check_intervals(seconds: float) -> str:
    """Format how often a server is asked: more often where that decides something.

    HAProxy gives up a check's connection after the interval, whatever its time-outs say, so a short one would
    take a mirror that is merely busy for dead.
    """
    quick = milliseconds(seconds / 4)
    return f"inter {milliseconds(seconds)} fastinter {quick} downinter {quick}"


def _bad_value(text: str) -> ConfigError:
    return ConfigError("haproxy.bad-value", "a value that HAProxy's configuration cannot carry", value=text)
