"""What is in force about a repository's clone bundles, as a `bundles` message carries it.

    {"replaces": digest of the message before it, "" for the first, "entries": […], "made": {…} or null,
     "previous": {"entries": […], "made": …} or null, "is_disabled": bool,
     "retired": [{"store", "name", "at"}]}

Promises: parsing gives back what formatting was given; what is read from a message is checked field by field.
Does not: know which message is in force (model.standing), or order entries (model.bundle_manifest).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.bundle_manifest import ManifestEntry, parse_entries
from hgfleet.model.ids import Digest, Node, Seq, parse_node
from hgfleet.model.message import Json


@dataclass(frozen=True, slots=True)
class Made:
    """Of which state the bundles were made: everything public and exposed at `seq`, up to `tip`."""

    seq: Seq
    tip: Node
    changesets: int
    at: float  # Unix seconds

    def to_json(self) -> dict[str, Json]:
        """Return the form in a message."""
        return {"seq": self.seq, "tip": self.tip, "changesets": self.changesets, "at": self.at}


@dataclass(frozen=True, slots=True)
class BundleSet:
    """Entries that are offered together; `made` is None while all of them were added by hand."""

    entries: tuple[ManifestEntry, ...] = ()
    made: Made | None = None

    def to_json(self) -> dict[str, Json]:
        """Return the form in a message."""
        made = self.made
        return {
            "entries": [entry.to_json() for entry in self.entries],
            "made": None if made is None else made.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Retired:
    """An object that no manifest names since `at`, and that is still in its store."""

    store: str
    name: str
    at: float


@dataclass(frozen=True, slots=True)
class BundleState:
    """Everything that one message says."""

    current: BundleSet = BundleSet()
    previous: BundleSet | None = None  # what `restore` brings back
    is_disabled: bool = False  # kept, and offered to nobody
    retired: tuple[Retired, ...] = ()

    @property
    def offered(self) -> tuple[ManifestEntry, ...]:
        """What clients are told."""
        return () if self.is_disabled else self.current.entries

    def to_json(self) -> dict[str, Json]:
        """Return a message's body, but for what it replaces."""
        return {
            **self.current.to_json(),
            "previous": None if self.previous is None else self.previous.to_json(),
            "is_disabled": self.is_disabled,
            "retired": [{"store": one.store, "name": one.name, "at": one.at} for one in self.retired],
        }


NOTHING = BundleState()


def parse_bundle_state(body: Mapping[str, Any]) -> BundleState:
    """Check a body; raise PoisonError `bundles.damaged`."""
    try:
        previous = body["previous"]
        return BundleState(
            current=_parse_set(body),
            previous=None if previous is None else _parse_set(previous),
            is_disabled=_flag(body["is_disabled"]),
            retired=tuple(_parse_retired(item) for item in body["retired"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RejectedError) as error:
        raise PoisonError("bundles.damaged", f"damaged bundle manifest: {error!r}") from error


def _parse_set(fields: Mapping[str, Any]) -> BundleSet:
    made = fields["made"]
    return BundleSet(parse_entries(fields["entries"]), None if made is None else _parse_made(made))


def _parse_made(fields: Mapping[str, Any]) -> Made:
    return Made(
        Seq(_natural(fields["seq"])),
        parse_node(fields["tip"]),
        _natural(fields["changesets"]),
        float(fields["at"]),
    )


def _parse_retired(fields: Mapping[str, Any]) -> Retired:
    if not isinstance(fields["store"], str) or not isinstance(fields["name"], str):
        raise TypeError("a retired object has no name")
    return Retired(fields["store"], fields["name"], float(fields["at"]))


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a number from 0")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a boolean")
    return value


@dataclass(frozen=True, slots=True)
class InForce:
    """The state, and which message says so: what a message that replaces it has to name."""

    state: BundleState = NOTHING
    digest: Digest = Digest("")
    seq: Seq = Seq(0)  # that the message is about
    at: float = 0.0  # when it was appended
    is_readable: bool = True  # False: a newer release wrote it, or it is damaged; `state` is nothing then
