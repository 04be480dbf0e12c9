"""One table of the array `[[hosts]]`: what the file says about one host.

Promises: name, address and roles are of the right form.
Does not: compare hosts with each other or with other tables (config.hosts).
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from hgfleet.config.section import Port, Section, check_address, setting
from hgfleet.config.units import Names
from hgfleet.errors import RejectedError
from hgfleet.model.ids import parse_host_name

RoleName = Literal["primary", "standby", "mirror", "coordinator", "notifier", "bundler", "balancer"]
_HOST_ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def _check_host_name(text: str) -> str:
    try:
        return parse_host_name(text)
    except RejectedError as error:
        raise ValueError(f"expected a host's name: {error.hint}") from error


def _check_host_address(text: str) -> str:
    if not _HOST_ADDRESS.fullmatch(text):
        raise ValueError("expected an IP address or a DNS name")
    return text


def _check_bind(text: str) -> str:
    return check_address(text) if text else text


class HostSection(Section):
    """One host of a fleet; every host has the same file. No [[hosts]]: all of the fleet is on one machine."""

    name: Annotated[str, AfterValidator(_check_host_name)] = setting(
        "", "what the fleet calls it; HGFLEET_HOST, --host or the machine's short host name choose it there"
    )
    address: Annotated[str, AfterValidator(_check_host_address)] = setting(
        "", "IP address or DNS name at which the other hosts reach it"
    )
    roles: Annotated[tuple[RoleName, ...], *Names.__metadata__] = setting(
        [],
        "what runs there: primary, standby or mirror; beside one of these coordinator, notifier, bundler; "
        "balancer (HAProxy)",
    )
    bind: Annotated[str, AfterValidator(_check_bind)] = setting(
        "", 'address that its processes listen on; "" is `address`, which must be an IP address then'
    )
    ssh_port: Port = setting(0, "of a primary or standby, where the load balancer finds it; 0 is ssh.port")
    https_port: Port = setting(
        0, "of a mirror's web workers, where the load balancer finds them; 0 is http.https_port"
    )
    admin_port: Port = setting(0, "health, status and metrics of this host; 0 is admin.port")
