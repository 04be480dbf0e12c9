"""Connects as a load balancer does and pumps both ways: an ssh client's ProxyCommand.

proxied.py HOST PORT HEADER-IN-HEX
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    """Send the header, then be a pipe."""
    host, port, header = sys.argv[1:4]
    connection = socket.create_connection((host, int(port)))
    connection.sendall(bytes.fromhex(header))
    threading.Thread(target=_send_input, args=(connection,), daemon=True).start()
    while data := connection.recv(65536):
        os.write(1, data)


def _send_input(connection: socket.socket) -> None:
    while data := os.read(0, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
