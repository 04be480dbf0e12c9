"""What the load balancer of a table of hosts is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.haproxy_config import Mirror
from hgfleet.adapters.haproxy_ssh import SshHost
from hgfleet.cli.haproxy_options import haproxy_options
from hgfleet.config.layout import FleetLayout
from hgfleet.config.load import parse_config
from hgfleet.errors import ConfigError
from hgfleet.model.ids import HostName

HOSTS = (
    {"name": "standby1", "address": "127.0.0.12", "roles": ["standby"]},
    {"name": "primary1", "address": "127.0.0.11", "roles": ["primary", "coordinator"]},
    {"name": "mirror1", "address": "127.0.0.13", "roles": ["mirror"]},
    {"name": "mirror2", "address": "127.0.0.14", "roles": ["mirror"], "https_port": 9443},
    {"name": "lb1", "address": "127.0.0.10", "roles": ["balancer"]},
    {"name": "lb2", "address": "127.0.0.20", "roles": ["balancer"]},
)
PORTS = {"ssh": {"port": 2200}, "http": {"http_port": 80, "https_port": 443}, "admin": {"port": 8090}}


def layout(own: str, *, proxy: dict[str, Any] | None = None, hosts: tuple[Any, ...] = HOSTS) -> FleetLayout:
    tables: dict[str, Any] = {
        "site": {"url": "https://hg.example.org"},
        "proxy": {"certificate": "/etc/hg.pem"} if proxy is None else proxy,
        "hosts": list(hosts),
        **PORTS,
    }
    return FleetLayout(parse_config(tables, Path("/etc/hgfleet/hgfleet.toml")), HostName(own))


def test_the_balancer_is_told_every_mirror_and_every_host_that_may_accept_pushes() -> None:
    options = haproxy_options(layout("lb1"))

    assert options.mirrors == (
        Mirror("mirror1", "127.0.0.13", 443, "hg.example.org"),
        Mirror("mirror2", "127.0.0.14", 9443, "hg.example.org"),
    )
    assert options.ssh is not None
    assert options.ssh.port == 2200
    assert options.ssh.hosts == (
        SshHost("primary1", "127.0.0.11", 2200, 8090),
        SshHost("standby1", "127.0.0.12", 2200, 8090),
    )
    assert (options.bind_address, options.public_name, options.public_port) == (
        "127.0.0.10",
        "hg.example.org",
        443,
    )
    assert options.certificate_file == Path("/etc/hg.pem")


def test_each_balancer_listens_on_its_own_address_and_another_host_prints_the_first_ones() -> None:
    second = haproxy_options(layout("lb2"))

    assert second.bind_address == "127.0.0.20"
    first = haproxy_options(layout("mirror1"))
    assert first.bind_address == "127.0.0.10"
    sockets = {second.control_socket, first.control_socket}
    assert len(sockets) == 2
    assert replace(first, bind_address="", ssh=None, control_socket=None) == replace(
        second, bind_address="", ssh=None, control_socket=None
    )


def test_what_a_balancer_lacks_is_named() -> None:
    with pytest.raises(ConfigError) as no_certificate:
        haproxy_options(layout("lb1", proxy={}))
    assert no_certificate.value.code == "proxy.no-certificate"
    with pytest.raises(ConfigError) as no_balancer:
        haproxy_options(layout("mirror1", hosts=HOSTS[:4]))
    assert no_balancer.value.code == "proxy.no-balancer"


def test_the_mirrors_certificate_may_carry_another_name() -> None:
    options = haproxy_options(
        layout("lb1", proxy={"certificate": "/etc/hg.pem", "mirror_certificate_name": "inner.example.org"})
    )

    assert {mirror.certificate_name for mirror in options.mirrors} == {"inner.example.org"}
