"""What every table of the configuration is made of: its base class, the declaration of a key, common types.

Promises: what a type accepts is checked when the file is read, and its error says what would be right.
Does not: know any key (config.schema, config.host_table).
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hgfleet.config.units import Names


def setting(default: Any, about: str, *, key: str | None = None) -> Any:
    """Declare one key: its default as written in the file, what it means, its name where it differs."""
    return Field(default=default, description=about, alias=key)


def check_address(text: str) -> str:
    """Refuse what is no IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError("expected an IP address") from error
    return text


def _check_network(networks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for network in networks:
            ipaddress.ip_network(network)
    except ValueError as error:
        raise ValueError('expected networks such as "10.0.0.0/8"') from error
    return networks


Address = Annotated[str, AfterValidator(check_address)]
Networks = Annotated[Names, AfterValidator(_check_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
Ports = Annotated[tuple[Port, ...], *Names.__metadata__]
Count = Annotated[int, Field(ge=1, le=1024)]


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", validate_default=True, validate_by_name=False
    )
