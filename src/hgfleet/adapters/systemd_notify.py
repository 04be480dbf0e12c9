"""Tells the service manager that started us (systemd, Type=notify) when we are ready and when we stop.

The protocol is sd_notify(3): one datagram of KEY=value lines to the socket that NOTIFY_SOCKET names.

Promises: without a service manager nothing happens; one that does not listen never harms us.
Does not: hand the socket on: processes of ours that inherit the environment do not speak for us.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(environment: Mapping[str, str], *words: str) -> bool:
    """Send the words; return whether somebody was there to take them."""
    address = environment.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    target = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.sendto("\n".join(words).encode(), target)
    except OSError:
        return False
    return True


def without_manager(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for processes that we start."""
    return {name: value for name, value in environment.items() if name != VARIABLE}
