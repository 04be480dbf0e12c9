"""Stands in for the session server: answers every session with a plain `hg serve --stdio`.

The SSH front in front of it is hgfleet's own, so what differs is what stands behind: no preloaded worker, no
checks, no log. Run as a program: `python -m bench.plain_sessions SOCKET REPOSITORIES`.

Promises: speaks the session server's protocol (docs/design/local-protocols.md); hg gets the client's
descriptors themselves, as from an sshd.
Does not: care who asks; it lives as long as one measurement.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from bench.session_frames import receive_request, send_header
from tests.support.clients import CURRENT_HG, clean_environment


def serve(path: Path, repositories: Path) -> None:
    """Answer sessions until killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, repositories), daemon=True).start()


def _answer(connection: socket.socket, repositories: Path) -> None:
    with connection:
        request = receive_request(connection)
        if request is None:
            return
        header, streams = request
        if header.get("op") != "serve":
            send_header(connection, {"ok": True, "sessions": []})
            return
        child = _start(repositories / str(header["path"]), streams)
        send_header(connection, {"ok": True, "pid": child.pid})
        status = child.wait()
        send_header(connection, {"ok": True, "exit": status if status >= 0 else 128 - status})


def _start(repository: Path, streams: list[int]) -> subprocess.Popen[bytes]:
    first, second, third = streams
    try:
        for stream in streams:
            os.set_blocking(stream, True)
        return subprocess.Popen(
            [str(CURRENT_HG), "-R", str(repository), "serve", "--stdio"],
            stdin=first,
            stdout=second,
            stderr=third,
            env=clean_environment(repository.parent),
        )
    finally:
        for stream in streams:
            os.close(stream)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
