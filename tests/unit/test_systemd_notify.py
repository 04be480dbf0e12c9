"""What the service manager hears."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hgfleet.adapters.systemd_notify import READY, STOPPING, notify, without_manager


def test_a_listening_manager_hears_the_words_in_one_datagram(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        assert notify({"NOTIFY_SOCKET": str(tmp_path / "notify")}, READY, STOPPING)

        assert manager.recv(100) == b"READY=1\nSTOPPING=1"


def test_an_abstract_socket_is_found_by_its_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0hgfleet-test-notify")

        assert notify({"NOTIFY_SOCKET": "@hgfleet-test-notify"}, READY)

        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    assert not notify({"NOTIFY_SOCKET": address}, READY)


def test_processes_that_we_start_do_not_speak_for_us() -> None:
    assert without_manager({"NOTIFY_SOCKET": "/x", "PATH": "/bin"}) == {"PATH": "/bin"}
