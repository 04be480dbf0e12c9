"""Asks the processes of a fleet whether they work, the way their clients would.

Promises: a probe takes two seconds at most, changes nothing and answers False rather than raise.
Does not: wait; whoever needs the answer asks again.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import FleetError

PROBE_SECONDS = 2.0


def is_agent_serving(path: Path) -> bool:
    """Tell whether the log agent accepts appends."""
    try:
        with LogAgentClient(path, PROBE_SECONDS) as agent:
            return agent.hello().is_serving
    except FleetError:
        return False


def is_answering(path: Path, op: str) -> bool:
    """Tell whether a local server answers an operation."""
    try:
        with LocalClient(path, PROBE_SECONDS) as client:
            client.call(op)
    except FleetError:
        return False
    return True


def is_listening(path: Path, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> bool:
    """Tell whether somebody listens at a socket: the reception that sshd's programs ask, by default."""
    try:
        with socket.socket(socket.AF_UNIX, kind) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.connect(str(path))
    except OSError:
        return False
    return True


def has_ssh_banner(address: str, port: int, is_proxied: bool = False) -> bool:
    """Tell whether an SSH server answers there; `is_proxied`: it wants a load balancer's header from us."""
    try:
        with socket.create_connection((address, port), PROBE_SECONDS) as connection:
            if is_proxied:
                connection.sendall(b"PROXY UNKNOWN\r\n")
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def http_status(address: str, port: int, path: str, *, is_tls: bool) -> int:
    """Return the status that our own server there answers with; 0 when there is none."""
    connection = (
        http.client.HTTPSConnection(address, port, timeout=PROBE_SECONDS, context=_own_server())
        if is_tls
        else http.client.HTTPConnection(address, port, timeout=PROBE_SECONDS)
    )
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _own_server() -> ssl.SSLContext:
    """Whether the certificate is the right one is for clients to check; here it is only seen to be served."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
