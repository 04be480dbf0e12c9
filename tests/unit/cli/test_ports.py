"""Ports are looked at before anything starts."""

from __future__ import annotations

import socket

import pytest

from hgfleet.cli.ports import WantedPort, resolve_ports
from hgfleet.errors import ConfigError


def wanted(port: int, address: str = "127.0.0.1") -> WantedPort:
    return WantedPort("http", f"port{port}{address}", "HTTPS", address, port, "--https-port")


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            resolve_ports([wanted(port)])
    assert caught.value.message == f"port {port} (HTTPS) is taken"
    assert caught.value.hint == "choose another with --https-port"


def test_free_ports_differ_from_each_other_and_from_those_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        fixed = probe.getsockname()[1]
    ports = resolve_ports(
        [*(WantedPort("m", str(n), "mirror", "127.0.0.1", 0, "") for n in range(20)), wanted(fixed)]
    )
    assert ports[-1] == fixed
    assert len(set(ports)) == 21


def test_an_address_that_is_not_here_is_said_so() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_ports([wanted(0, "203.0.113.1")])
    assert caught.value.code == "port.unusable"
    assert "203.0.113.1" in caught.value.message
