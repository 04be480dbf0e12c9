"""A repository's settings: declarative values that travel in its sequence, never a raw hgrc.

Promises: settings parsed from a message are complete and typed; unknown names from a newer release are a
PoisonError (the repository is parked until the host is upgraded), never silently dropped.
Does not: decide access (model.access) or know Mercurial's own configuration.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from hgfleet.errors import PoisonError


@dataclass(frozen=True, slots=True)
class RepoSettings:
    """What a repository's owner decides about it."""

    writers: tuple[str, ...] = ()  # groups whose enabled members may push
    is_publishing: bool = True  # whether pushed changesets become public
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form carried by `created` and `settings` messages."""
        return asdict(self) | {"writers": list(self.writers)}


def parse_repo_settings(values: Any) -> RepoSettings:
    """Check the JSON form; raise PoisonError `settings.damaged`."""
    known = {field.name for field in fields(RepoSettings)}
    if not isinstance(values, dict) or values.keys() != known:
        raise PoisonError("settings.damaged", "damaged or unknown repository settings")
    writers = values["writers"]
    is_fit = (
        isinstance(writers, list)
        and all(_is_text(group) for group in writers)
        and isinstance(values["is_publishing"], bool)
        and _is_text(values["description"])
    )
    if not is_fit:
        raise PoisonError("settings.damaged", "damaged or unknown repository settings")
    return RepoSettings(tuple(writers), values["is_publishing"], values["description"])


def _is_text(value: Any) -> bool:
    """Whether the value can be written down: JSON can also spell half a character."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
