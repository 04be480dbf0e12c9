"""One end of a cable that takes its time: a TUN device, and a process that passes packets on after a delay.

Kernels without netem have nothing else. Packets keep their order within one direction.

Promises: the delay holds for both directions, each for itself; the processes end with the test's.
Does not: lose packets on purpose (the router's rules do); what comes faster than it can be copied is
lost, as on any cable.

Run as a program (`python -m tests.support.wire DESCRIPTOR DEVICE DELAY JITTER`) it is one end.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_PACKET_BYTES = 65535
_BATCH = 64
_IDLE_SECONDS = 1.0
_BUFFER_BYTES = 4 * 1024 * 1024


class _End:
    """Packets of the device go to the other end late, those of the other end to the device at once."""

    def __init__(self, other_end: socket.socket, device: int, delay: Callable[[], float]) -> None:
        self._other_end = other_end
        self._device = device
        self._delay = delay
        self._late: list[tuple[float, int, bytes]] = []
        self._count = 0
        self._last_at = 0.0

    def run(self) -> None:
        """Copy until the other end is gone."""
        selector = selectors.DefaultSelector()
        selector.register(self._device, selectors.EVENT_READ, self._take)
        selector.register(self._other_end, selectors.EVENT_READ, self._deliver)
        while True:
            due_in = self._late[0][0] - time.monotonic() if self._late else _IDLE_SECONDS
            for key, _ in selector.select(max(0.0, due_in)):
                key.data()
            self._send_due()

    def _take(self) -> None:
        for packet in _batch(lambda: os.read(self._device, _PACKET_BYTES)):
            self._count += 1
            self._last_at = max(self._last_at, time.monotonic() + self._delay())
            heapq.heappush(self._late, (self._last_at, self._count, packet))

    def _deliver(self) -> None:
        for packet in _batch(lambda: self._other_end.recv(_PACKET_BYTES)):
            if not packet:
                sys.exit(0)
            try:
                os.write(self._device, packet)
            except OSError:
                continue  # the device is down or full: lost

    def _send_due(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, packet = heapq.heappop(self._late)
            try:
                self._other_end.send(packet)
            except BlockingIOError:
                continue


def _batch(read: Callable[[], bytes]) -> list[bytes]:
    packets = []
    for _ in range(_BATCH):
        try:
            packets.append(read())
        except BlockingIOError:
            break
    return packets


def _open_device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    return device


def _main(descriptor: int, name: str, delay_seconds: float, jitter_seconds: float) -> None:
    with socket.socket(fileno=descriptor) as other_end:
        other_end.setblocking(False)
        other_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        _End(other_end, _open_device(name), lambda: delay_seconds + random.uniform(0, jitter_seconds)).run()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
