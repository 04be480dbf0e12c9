"""The table of hosts: what is accepted, what cannot work, and where each host's files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hgfleet.cli.addresses import has_proxy, mirror_addresses, ssh_addresses
from hgfleet.cli.this_host import find_this_host
from hgfleet.config.hosts import find_host, hosts_with
from hgfleet.config.layout import FleetLayout
from hgfleet.config.load import load_config, parse_config
from hgfleet.config.render import render_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError, InvariantError, RejectedError
from hgfleet.model.ids import HostName

PRIMARY = {"name": "hg1", "address": "127.0.0.11", "roles": ["primary", "coordinator"]}
STANDBY = {"name": "hg2", "address": "127.0.0.12", "roles": ["standby", "coordinator"]}
MIRROR = {"name": "hg3", "address": "127.0.0.13", "roles": ["mirror"]}
OTHER_MIRROR = {"name": "hg4", "address": "127.0.0.14", "roles": ["mirror"], "https_port": 9443}
BALANCER = {"name": "lb", "address": "127.0.0.10", "roles": ["balancer"]}
SITE = {"url": "https://hg.example.org"}


def parse(*hosts: dict[str, Any], **tables: Any) -> FleetConfig:
    return parse_config({"site": SITE, "hosts": list(hosts), **tables}, Path("/etc/hgfleet/hgfleet.toml"))


def problems_of(*hosts: dict[str, Any], **tables: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(*hosts, **tables)
    return caught.value.hint.splitlines()


def test_a_host_inherits_the_ports_that_it_does_not_name() -> None:
    config = parse(PRIMARY, STANDBY, MIRROR, OTHER_MIRROR, BALANCER)

    assert [host.name for host in hosts_with(config, "mirror")] == ["hg3", "hg4"]
    assert [host.https_port for host in hosts_with(config, "mirror")] == [8443, 9443]
    assert find_host(config, "hg2").is_leading
    assert not find_host(config, "hg3").is_leading
    assert config.mirror_count == 2


def test_the_load_balancer_finds_mirrors_and_the_hosts_that_may_accept_pushes() -> None:
    config = parse(STANDBY, PRIMARY, OTHER_MIRROR, MIRROR, BALANCER)

    assert has_proxy(config)
    assert [mirror.url for mirror in mirror_addresses(config)] == [
        "https://127.0.0.14:9443",
        "https://127.0.0.13:8443",
    ]
    assert [ssh.name for ssh in ssh_addresses(config)] == ["hg1", "hg2"]


def test_a_fleet_without_a_balancer_host_has_no_proxy_of_ours() -> None:
    assert not has_proxy(parse(PRIMARY, MIRROR, OTHER_MIRROR))


def test_a_configuration_with_hosts_reads_back_the_same_from_anywhere(tmp_path: Path) -> None:
    config = parse(PRIMARY, MIRROR, BALANCER)
    (tmp_path / "effective.toml").write_text(render_config(config))

    assert load_config(tmp_path / "effective.toml") == config


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        ([PRIMARY], "hosts: at least one needs the role mirror"),
        ([PRIMARY, MIRROR, MIRROR], "hosts: 2 of them are named hg3"),
        ([MIRROR | {"roles": ["mirror", "coordinator"]}], "hosts: exactly one has the role primary, not 0"),
        (
            [PRIMARY, STANDBY | {"roles": ["primary"]}, MIRROR],
            "hosts: exactly one has the role primary, not 2",
        ),
        ([PRIMARY | {"roles": ["primary"]}, MIRROR], "hosts: at least one needs the role coordinator"),
        (
            [PRIMARY | {"roles": ["primary", "mirror", "coordinator"]}],
            "hosts[0].roles: a host is at most one of primary, standby, mirror",
        ),
        (
            [PRIMARY | {"roles": ["primary", "coordinator", "bundler"]}, MIRROR],
            "hosts[0].roles: a bundler works on a replica: beside a standby or a mirror",
        ),
        (
            [PRIMARY, MIRROR, BALANCER | {"roles": ["balancer", "bundler"]}],
            "hosts[2].roles: bundler uses the log agent of a primary, standby or mirror on its host",
        ),
        ([PRIMARY, MIRROR, BALANCER | {"roles": []}], "hosts[2].roles: must name at least one"),
        ([PRIMARY, MIRROR | {"roles": ["mirror", "mirror"]}], "hosts[1].roles: names one twice"),
        (
            [PRIMARY, MIRROR | {"address": "hg3.example.org", "bind": ""}],
            "hosts[1].bind: is needed where address is a name",
        ),
        (
            [PRIMARY, MIRROR | {"roles": ["mirror", "balancer"]}],
            "hosts[1]: https_port, http.https_port are the same port 8443 there",
        ),
    ],
)
def test_hosts_that_cannot_work_together_are_refused(hosts: list[dict[str, Any]], problem: str) -> None:
    assert problem in problems_of(*hosts)


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        (MIRROR | {"name": "Hg 3"}, "hosts[1].name: expected a host's name: "),
        (MIRROR | {"address": "hg3:8443/x"}, "hosts[1].address: expected an IP address or a DNS name"),
        (
            {"name": "hg3", "roles": ["mirror"]},
            "hosts[1].address: expected an IP address or a DNS name, not ''",
        ),
        (MIRROR | {"roles": ["miror"]}, "hosts[1].roles[0]: should be 'primary', 'standby', 'mirror'"),
        (MIRROR | {"adress": "x"}, "hosts[1].adress: unknown; did you mean address?"),
        (MIRROR | {"https_port": 70000}, "hosts[1].https_port: should be less than or equal to 65535"),
    ],
)
def test_a_host_that_cannot_be_read_is_named_by_its_place(host: dict[str, Any], problem: str) -> None:
    [found] = problems_of(PRIMARY, host)

    assert found.startswith(problem)


def test_hosts_must_be_an_array_of_tables() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"site": SITE, "hosts": {"name": "hg1"}}, Path("hgfleet.toml"))

    assert caught.value.hint == "hosts: expected an array of tables, written [[hosts]]"


def test_hosts_on_several_machines_cannot_share_the_files_of_one() -> None:
    assert problems_of(PRIMARY | {"address": "10.0.0.11"}, MIRROR) == [
        'log.kind: "sqlite" is one machine\'s files, which hosts on several cannot share',
        'blobs.kind: "directory" is one machine\'s files, which hosts on several cannot share',
        'directory.kind: "toml" is one machine\'s files, which hosts on several cannot share',
    ]


def test_tables_that_only_one_machine_can_use_are_refused_with_hosts() -> None:
    assert problems_of(PRIMARY, MIRROR, site={}) == [
        "site.url: is needed with hosts: where clients find the load balancer"
    ]
    assert problems_of(PRIMARY, MIRROR, mirrors={"ports": [9001]}) == [
        "mirrors.ports: are for one machine; with hosts each has its https_port"
    ]
    assert problems_of(PRIMARY, MIRROR, ssh={"port": 0}) == [
        "hosts[0].ssh_port: is needed with hosts, as others have to find it"
    ]
    assert problems_of(PRIMARY, MIRROR, membership={"floor": 2}) == [
        "membership.floor: is above the number of mirrors, so nothing could ever be exposed"
    ]


def test_a_balancer_that_is_known_by_name_must_be_trusted_by_network() -> None:
    balancer = BALANCER | {"address": "localhost", "bind": "127.0.0.10"}

    assert any("http.trusted_proxies" in problem for problem in problems_of(PRIMARY, MIRROR, balancer))


def test_hosts_that_share_a_machine_share_no_file() -> None:
    config = parse(PRIMARY, STANDBY, MIRROR)
    layouts = [FleetLayout(config, HostName(name)) for name in ("hg1", "hg2", "hg3")]

    for path in ("agent_socket", "sessions_socket", "hgrc", "logs", "audit_file"):
        assert len({getattr(layout, path) for layout in layouts}) == 3, path
    assert len({layout.agent_host.directory for layout in layouts}) == 3


def test_only_a_host_that_may_accept_pushes_has_files_that_sessions_write() -> None:
    config = parse(PRIMARY, STANDBY, MIRROR)

    assert FleetLayout(config, HostName("hg2")).primary.name == "hg2"
    with pytest.raises(RejectedError, match="never accepts pushes"):
        _ = FleetLayout(config, HostName("hg3")).primary
    assert [mirror.name for mirror in FleetLayout(config, HostName("hg3")).mirrors] == ["hg3"]
    assert FleetLayout(config, HostName("hg1")).mirrors == []


def test_a_layout_without_its_host_is_a_defect() -> None:
    with pytest.raises(InvariantError):
        FleetLayout(parse(PRIMARY, MIRROR))


def test_this_host_is_named_by_option_then_environment_then_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(PRIMARY, STANDBY, MIRROR)
    monkeypatch.setattr("socket.gethostname", lambda: "HG3.example.org")

    assert find_this_host(config, None) == "hg3"
    monkeypatch.setenv("HGFLEET_HOST", "hg2")
    assert find_this_host(config, None) == "hg2"
    assert find_this_host(config, "hg1") == "hg1"


def test_a_machine_that_is_none_of_the_hosts_is_told_how_to_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = parse(PRIMARY, MIRROR)
    monkeypatch.delenv("HGFLEET_HOST", raising=False)
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")

    with pytest.raises(ConfigError) as unnamed:
        find_this_host(config, None)
    with pytest.raises(ConfigError) as unknown:
        find_this_host(config, "hg9")
    assert (unnamed.value.code, unknown.value.code) == ("host.not-named", "host.unknown")


def test_a_host_cannot_be_named_where_the_configuration_has_none() -> None:
    config = parse_config({}, Path("hgfleet.toml"))

    assert find_this_host(config, None) is None
    with pytest.raises(ConfigError, match="names no hosts"):
        find_this_host(config, "hg1")
