"""The clone bundles of a repository: what a manifest says, in which order, and what fits a client's place.

The text format is Mercurial's: a line per entry, the URL, then URI-encoded key=value attributes. Names in
upper case are Mercurial's own, the others are the site's. A client drops the entries that it cannot read,
sorts the rest by its preferences and tries the first one only; without preferences, the first as given here.

Promises: pure; an entry that was read from a message is checked field by field; the text of a manifest gives
Mercurial back exactly the URLs and attributes that the entries have.
Does not: make, publish or check bundles, or decide where a client is (model.locations).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.ids import Digest, parse_digest
from hgfleet.model.message import Json

MAX_ENTRIES = 1000
_KEPT_SIGNS = ";:-._~"  # readable, and special to nobody who reads the line
_ATTRIBUTE = re.compile(r"[A-Za-z0-9-]{1,40}")
_OWN_NAMES = frozenset({"URL", "BUNDLESPEC", "DIGEST"})


class BundleType(StrEnum):
    """What can be generated, in the order in which a manifest lists it."""

    ZSTD_MAX = "zstd-max"
    ZSTD = "zstd"
    GZIP_V2 = "gzip-v2"
    GZIP_V1 = "gzip-v1"
    PACKED1 = "packed1"
    STREAM_V2 = "stream-v2"
    OTHER = "other"  # added by hand, of a kind that is not generated

    @property
    def is_streaming(self) -> bool:
        """Whether the client copies files instead of building them, which is faster and takes more bytes."""
        return self in {BundleType.PACKED1, BundleType.STREAM_V2}


_RANK_BY_TYPE = {kind: rank for rank, kind in enumerate(BundleType)}


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One URL at which a bundle lies; `attributes` are those of its line but for BUNDLESPEC and DIGEST."""

    url: str
    kind: BundleType
    spec: str
    size_bytes: int
    sha256: Digest
    store: str = ""  # the configured store that has it; "" when it was added by hand
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_by_hand(self) -> bool:
        """Whether a person added it: regeneration leaves it in place."""
        return not self.store

    @property
    def needs_sni(self) -> bool:
        """Whether a client without SNI must not try it."""
        return self.attributes.get("REQUIRESNI") == "true"

    @property
    def is_on_cdn(self) -> bool:
        """Whether a CDN answers there, which is near everybody."""
        return self.attributes.get("cdn") == "true"

    def to_json(self) -> dict[str, Json]:
        """Return the form carried by `bundles` messages."""
        return {
            "url": self.url,
            "type": self.kind.value,
            "spec": self.spec,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "store": self.store,
            "attributes": dict(self.attributes),
        }


# ---- messages


def parse_entries(values: Any) -> tuple[ManifestEntry, ...]:
    """Check what a `bundles` message carries; raise PoisonError `bundles.damaged`."""
    if not isinstance(values, list) or len(values) > MAX_ENTRIES:
        raise _damaged("there is no list of entries")
    return tuple(_parse_entry(value) for value in values)


def _parse_entry(value: Any) -> ManifestEntry:
    if not isinstance(value, dict):
        raise _damaged("an entry is no object")
    try:
        entry = ManifestEntry(
            url=_text(value, "url"),
            kind=BundleType(_text(value, "type")),
            spec=_text(value, "spec"),
            size_bytes=_natural(value, "size_bytes"),
            sha256=parse_digest(_text(value, "sha256")),
            store=_text(value, "store"),
            attributes=_attributes(value.get("attributes")),
        )
        check_entry(entry)
    except (ValueError, RejectedError) as error:
        raise _damaged(str(error)) from error
    return entry


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise ValueError(f"field {name!r} is no text")
    return text


def _natural(value: Mapping[str, Any], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError(f"field {name!r} is no size")
    return number


def _attributes(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("the attributes are not texts by name")
    return value


def check_entry(entry: ManifestEntry) -> None:
    """Refuse what a line of a manifest cannot say, or what no client may be sent to.

    Raises RejectedError `bundles.bad-url`, `bundles.bad-spec` or `bundles.bad-attribute`.
    """
    is_reachable = entry.url.startswith(("http://", "https://"))
    if not is_reachable or not entry.url.isascii() or any(not "!" <= sign <= "~" for sign in entry.url):
        raise RejectedError(
            "bundles.bad-url", "not a URL of a bundle", hint="http:// or https://, no blanks", url=entry.url
        )
    if not entry.spec or not entry.spec.isascii() or not entry.spec.isprintable():
        raise RejectedError("bundles.bad-spec", "not a bundle specification", spec=entry.spec)
    check_attributes(entry.attributes)


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Refuse what a line's attributes cannot be. Raises RejectedError `bundles.bad-attribute`."""
    for name, text in attributes.items():
        if _ATTRIBUTE.fullmatch(name) is None or name in _OWN_NAMES:
            raise RejectedError("bundles.bad-attribute", "not a name for an attribute", name=name)
        if not text.isprintable():
            raise RejectedError("bundles.bad-attribute", "an attribute's value cannot be printed", name=name)


def _damaged(reason: str) -> PoisonError:
    return PoisonError("bundles.damaged", f"damaged bundle manifest: {reason}")


# ---- order


def arrange(entries: Iterable[ManifestEntry], stores: Sequence[str]) -> tuple[ManifestEntry, ...]:
    """Put entries into the order of a manifest: by type, a CDN first, then the stores as they are configured.

    What was added by hand comes first within its type: somebody wanted it.
    """
    rank_by_store = {name: rank for rank, name in enumerate(stores)}

    def rank(entry: ManifestEntry) -> tuple[int, bool, bool, int, str]:
        store_rank = rank_by_store.get(entry.store, len(rank_by_store))
        is_later = (not entry.is_by_hand, not entry.is_on_cdn)
        return (_RANK_BY_TYPE[entry.kind], *is_later, store_rank, entry.url)

    return tuple(sorted(entries, key=rank))


def types_without_fallback(entries: Iterable[ManifestEntry]) -> set[BundleType]:
    """Return the types that a client without SNI finds only at URLs that need it."""
    listed = list(entries)
    return {e.kind for e in listed if e.needs_sni} - {e.kind for e in listed if not e.needs_sni}


# ---- a client's place


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client is, as far as it matters: `name`=`value` is the attribute of entries that lie there."""

    name: str = ""
    value: str = ""
    is_fast: bool = False  # a network so near that bytes cost less than computing

    @property
    def key(self) -> str:
        """What tells this place from others in a cache's key."""
        return f"{self.name}={self.value}{'+fast' if self.is_fast else ''}"


ANYWHERE = Place()


def entries_for(
    entries: Sequence[ManifestEntry], place: Place, reads_stream_v2: bool | None = None
) -> tuple[ManifestEntry, ...]:
    """Return what a client at that place is told, in the order in which it should try.

    Within a location that has bundles, only these, streaming first; what a CDN has of other types follows,
    for clients that can read none of those. Elsewhere, all.

    Clients before 5.0 take `none-v2;stream=v2` for a bundle that they can read, and abort (seen: 3.6, 3.7,
    4.0, 4.1). One that is known to be so old (False) is not told of any; where nothing is known (None), they
    come after what everybody can read, not first.
    """
    if reads_stream_v2 is False:
        entries = [entry for entry in entries if entry.kind is not BundleType.STREAM_V2]
    first = _STREAMS if reads_stream_v2 else _STREAMS - {BundleType.STREAM_V2}
    here = [entry for entry in entries if place.name and entry.attributes.get(place.name) == place.value]
    if here:
        types = {entry.kind for entry in here}
        others = [entry for entry in entries if entry.is_on_cdn and entry.kind not in types]
        return (*_put_first(first, here), *others)
    return tuple(_put_first(first, entries) if place.is_fast else entries)


_STREAMS = frozenset(kind for kind in BundleType if kind.is_streaming)


def _put_first(kinds: frozenset[BundleType], entries: Iterable[ManifestEntry]) -> list[ManifestEntry]:
    return sorted(entries, key=lambda entry: entry.kind not in kinds)


_AGENT_BEFORE_4 = "mercurial/proto-1.0"
_AGENT = re.compile(r"\(Mercurial (\d+)\.\d")
_FIRST_WITH_STREAM_V2 = 5


def agent_reads_stream_v2(agent: str) -> bool | None:
    """Tell from how a client names itself, `mercurial/proto-1.0 (Mercurial 7.2)`; None: it does not say.

    Releases before 4.0 name no version (seen: 3.6, 3.7).
    """
    if agent == _AGENT_BEFORE_4:
        return False
    found = _AGENT.search(agent)
    return int(found[1]) >= _FIRST_WITH_STREAM_V2 if found else None


# ---- text


def format_manifest(entries: Iterable[ManifestEntry]) -> bytes:
    """Return what `clonebundles` answers."""
    return b"".join(_format_line(entry) for entry in entries)


def _format_line(entry: ManifestEntry) -> bytes:
    attributes = {"BUNDLESPEC": entry.spec}
    if entry.sha256:
        attributes["DIGEST"] = f"sha256:{entry.sha256}"
    attributes |= dict(sorted(entry.attributes.items()))
    words = [f"{_quoted(name)}={_quoted(text)}" for name, text in attributes.items()]
    return " ".join([entry.url, *words]).encode("ascii") + b"\n"


def _quoted(text: str) -> str:
    return quote(text, safe=_KEPT_SIGNS)
