"""Finds ports on the loopback addresses, for programs that are started a moment later.

Promises: no port is given twice, neither in this process nor in others that use this module at the same time:
each process holds blocks of ports while it lives. They lie below those that the kernel gives to outgoing
connections and to port 0, so a server that is started again finds its port free.
Does not: know other programs with fixed ports in that range, but for those that listen when it looks.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

_PROBE_SECONDS = 1.0
_FIRST, _LAST, _BLOCK = 20_000, 32_000, 200


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on now, and that nobody else is given."""
    return next(port for port in _ports if _is_free(address, port))


def is_listening(port: int) -> bool:
    """Tell whether something listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), _PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _own_ports() -> Iterator[int]:
    """Yield the ports of blocks that are held by names in the kernel, which end with their process."""
    blocks = range(_FIRST, _LAST, _BLOCK)
    begin = os.getpid() % len(blocks)
    held = []
    for first in itertools.chain(blocks[begin:], blocks[:begin]):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(f"\0hgfleet-ports-{first}")
        except OSError:
            holder.close()
            continue
        held.append(holder)
        yield from range(first, first + _BLOCK)
    raise RuntimeError(f"all ports from {_FIRST} to {_LAST} are held by other runs: wait for them to end")


def _is_free(address: str, port: int) -> bool:
    try:
        socket.create_server((address, port)).close()
    except OSError:
        return False
    return True


_ports = _own_ports()
