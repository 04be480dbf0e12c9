"""Finds out before anything starts whether every port can be had, and picks free ones where 0 is asked for.

Promises: a port that is taken is named with what it is for and how to choose another; chosen ports differ.
Does not: keep ports: another program may take one before our process does, which then says so itself.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hgfleet.errors import ConfigError


@dataclass(frozen=True, slots=True)
class WantedPort:
    """One port that a process will listen on; 0 takes a free one."""

    table: str  # where the configuration has it
    key: str
    what: str  # for people
    address: str
    port: int
    option: str  # of `hgfleet up`


def resolve_ports(wanted: Sequence[WantedPort]) -> list[int]:
    """Return each port, free ones in place of 0; raise ConfigError `port.taken` or `port.unusable`."""
    with ExitStack() as held:
        sockets = [held.enter_context(_bind(port)) for port in sorted(wanted, key=lambda port: not port.port)]
        numbers = dict(zip(sorted(wanted, key=lambda port: not port.port), _numbers(sockets), strict=True))
        return [numbers[port] for port in wanted]


def _numbers(sockets: Sequence[socket.socket]) -> Iterator[int]:
    for bound in sockets:
        yield int(bound.getsockname()[1])


def _bind(wanted: WantedPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((wanted.address, wanted.port))
        bound.listen(1)
    except OSError as error:
        bound.close()
        raise _describe(wanted, error) from error
    return bound


def _describe(wanted: WantedPort, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            "port.taken",
            f"port {wanted.port} ({wanted.what}) is taken",
            hint=f"choose another with {wanted.option}",
        )
    return ConfigError(
        "port.unusable",
        f"port {wanted.port} ({wanted.what}) cannot be used on {wanted.address}: {error.strerror}",
        hint=f"choose another with {wanted.option} or --bind",
    )
