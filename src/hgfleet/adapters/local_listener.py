"""Makes a local socket that only our own user gets at, and tells who is at the other end of a connection.

Promises: the socket's file is never open to others, not for a moment; one that was left behind is replaced.
Does not: accept.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from hgfleet.errors import ConfigError

_BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def listen_locally(path: Path) -> socket.socket:
    """Listen at a path. Raises ConfigError `local.listen`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            "local.listen", "cannot listen there", path=str(path), reason=error.strerror or str(error)
        ) from error
    finally:
        os.umask(mask)
    return listener


def is_own_user(connection: socket.socket) -> bool:
    """Tell whether the peer runs as our user (or root)."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid in (os.getuid(), 0)
