"""What an operator wants of a mirror: a record of the state topic, under `wish/<host>`.

Promises: parse_wish(key and value of w) == w; what cannot be read is no wish.
Does not: bring it about (the host's applier does), or care for incarnations: a wish outlives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgfleet.model.ids import HostName, parse_host_name


@dataclass(frozen=True, slots=True)
class Wish:
    """The newest word about a host counts, over its restarts."""

    host: HostName
    is_drained: bool  # it shall refuse reads and stay out until the next wish
    identity: str = ""  # whose word it is

    @property
    def key(self) -> str:
        return f"wish/{self.host}"

    @property
    def value(self) -> Mapping[str, Any]:
        return {"is_drained": self.is_drained, "identity": self.identity}


def parse_wish(words: list[str], value: Mapping[str, Any]) -> Wish:
    """Parse the key's words and the value; ValueError or RejectedError for what is none."""
    [_, host] = words
    is_drained, identity = value.get("is_drained"), value.get("identity", "")
    if not isinstance(is_drained, bool) or not isinstance(identity, str):
        raise ValueError("is_drained")
    return Wish(parse_host_name(host), is_drained, identity)
