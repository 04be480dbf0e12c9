"""A repository's settings: declarative values that travel in its sequence, never a raw hgrc.

Promises: settings parsed from a message are complete and typed; unknown names from a newer release are a
PoisonError (the repository is parked until the host is upgraded), never silently dropped.
Does not: decide access (model.access) or know Mercurial's own configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hgfleet.errors import PoisonError
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import BundlePolicy, Wanted

BUNDLES = "bundles"  # the one part that is left out while it says nothing: older releases do not know it


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """What a repository says of its clone bundles; what it does not say is as the site has it."""

    wanted: Wanted | None = None
    types: tuple[BundleType, ...] = ()
    max_age_seconds: float | None = None
    growth: float | None = None
    stores: tuple[str, ...] = ()  # names; (): all

    def to_json(self) -> dict[str, Any]:
        """Return what is said."""
        fields = {
            "wanted": self.wanted and self.wanted.value,
            "types": [kind.value for kind in self.types],
            "max_age_seconds": self.max_age_seconds,
            "growth": self.growth,
            "stores": list(self.stores),
        }
        return {name: value for name, value in fields.items() if value not in (None, [])}

    def policy(self, site: BundlePolicy) -> BundlePolicy:
        """Return what holds for the repository."""
        said = {
            "wanted": self.wanted,
            "kinds": frozenset(self.types) or None,
            "max_age_seconds": self.max_age_seconds,
            "growth": self.growth,
        }
        return replace(site, **{name: value for name, value in said.items() if value is not None})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class RepoSettings:
    """What a repository's owner decides about it."""

    writers: tuple[str, ...] = ()  # groups whose enabled members may push
    is_publishing: bool = True  # whether pushed changesets become public
    description: str = ""
    bundles: BundleSettings = BundleSettings()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form carried by `created` and `settings` messages."""
        bundles = self.bundles.to_json()
        return {
            "writers": list(self.writers),
            "is_publishing": self.is_publishing,
            "description": self.description,
            **({BUNDLES: bundles} if bundles else {}),
        }


def parse_repo_settings(values: Any) -> RepoSettings:
    """Check the JSON form; raise PoisonError `settings.damaged`."""
    if not isinstance(values, dict) or values.keys() - {BUNDLES} != _ALWAYS_THERE:
        raise _damaged()
    writers = values["writers"]
    is_fit = (
        isinstance(writers, list)
        and all(_is_text(group) for group in writers)
        and isinstance(values["is_publishing"], bool)
        and _is_text(values["description"])
    )
    if not is_fit:
        raise _damaged()
    bundles = _parse_bundles(values.get(BUNDLES, {}))
    return RepoSettings(tuple(writers), values["is_publishing"], values["description"], bundles)


_ALWAYS_THERE = {"writers", "is_publishing", "description"}
_OF_BUNDLES = {"wanted", "types", "max_age_seconds", "growth", "stores"}


def _parse_bundles(values: Any) -> BundleSettings:
    if not isinstance(values, dict) or not values.keys() <= _OF_BUNDLES:
        raise _damaged()
    try:
        return BundleSettings(
            wanted=Wanted(values["wanted"]) if "wanted" in values else None,
            types=tuple(BundleType(name) for name in _texts(values, "types")),
            max_age_seconds=_number(values, "max_age_seconds"),
            growth=_number(values, "growth"),
            stores=_texts(values, "stores"),
        )
    except (ValueError, TypeError) as error:
        raise _damaged() from error


def _texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = values.get(name, [])
    if not isinstance(texts, list) or not all(_is_text(text) for text in texts):
        raise TypeError(name)
    return tuple(texts)


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError(name)
    return float(value)


def _damaged() -> PoisonError:
    return PoisonError("settings.damaged", "damaged or unknown repository settings")


def _is_text(value: Any) -> bool:
    """Whether the value can be written down: JSON can also spell half a character."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
