"""The embedded front's listening socket behind a load balancer: whoever is let in is accepted."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hgfleet.adapters.prompt_sockets import listen
from hgfleet.adapters.proxied_listener import ProxiedListener
from hgfleet.adapters.ssh_entrance import EntranceOptions
from tests.support.receptions import LoopThread

CLIENTS = 300
OPTIONS = EntranceOptions(("127.0.0.0/8",), header_timeout_seconds=60.0, max_connections=2 * CLIENTS)


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.stop()


async def serve(listener: ProxiedListener) -> asyncio.Server:
    """Tell each client the address that it came in with."""

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode() + b"\n")
        await writer.drain()
        writer.close()

    return await asyncio.start_server(tell, sock=listener)


def test_all_who_finish_their_headers_in_the_same_moment_are_accepted(loop: LoopThread) -> None:
    listener = loop.call(lambda: ProxiedListener(listen("127.0.0.1", 0), OPTIONS))
    server = loop.run(serve(listener))
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(listener.getsockname(), 30)) for _ in range(CLIENTS)
        ]
        is_sent = threading.Event()
        blocked = threading.Thread(target=loop.call, args=(is_sent.wait,))
        blocked.start()
        for number, client in enumerate(clients):
            client.sendall(f"PROXY TCP4 192.0.2.{number % 250} 192.0.2.254 1000 22\r\n".encode())
        is_sent.set()
        blocked.join()
        told = [client.makefile().readline() for client in clients]
    loop.call(server.close)
    assert told == [f"192.0.2.{number % 250}\n" for number in range(CLIENTS)]
