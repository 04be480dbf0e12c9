"""What people change about a repository's bundles: the state after each change, before it is appended.

Promises: pure, but for `verified_entry`, which fetches the bundle whole: what people add is read back like
what is made. A change that changes nothing is refused, with what is the case.
Does not: append (cli.bundle_commands).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hgfleet.bundles.publishing import BundleStore, PublicReader
from hgfleet.bundles.replacing import with_entries
from hgfleet.errors import RejectedError
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry, arrange, check_entry
from hgfleet.model.bundle_state import BundleState

_SPEC, _DIGEST = "BUNDLESPEC", "DIGEST"
_KIND_BY_SPEC = {
    "zstd-v2": BundleType.ZSTD,
    "gzip-v2": BundleType.GZIP_V2,
    "gzip-v1": BundleType.GZIP_V1,
    "none-packed1": BundleType.PACKED1,
}


def disabled(state: BundleState) -> BundleState:
    """Return the state in which nothing is offered, and all is kept."""
    if state.is_disabled:
        raise RejectedError("bundles.unchanged", "the bundles are disabled already")
    if not state.current.entries:
        raise RejectedError(
            "bundles.none", "the repository has no bundles", hint="`hgfleet repo set --bundles off`"
        )
    return replace(state, is_disabled=True)


def restored(state: BundleState) -> BundleState:
    """Return the state in which what was disabled is offered again, or else the set before this one."""
    if state.is_disabled:
        return replace(state, is_disabled=False)
    if state.previous is None or not state.previous.entries:
        raise RejectedError("bundles.none", "there is no set of bundles before this one")
    return replace(state, current=state.previous, previous=state.current)


def with_added(
    state: BundleState, entry: ManifestEntry, stores: Sequence[BundleStore], now: float
) -> BundleState:
    """Return the state that offers the entry, too; another one at its URL gives way."""
    others = [one for one in state.current.entries if one.url != entry.url]
    entries = arrange([*others, entry], [store.name for store in stores])
    return with_entries(state, entries, stores, now)


def without_url(state: BundleState, url: str, stores: Sequence[BundleStore], now: float) -> BundleState:
    """Return the state without the entry that somebody added at the URL."""
    found = [one for one in state.current.entries if one.url == url]
    if not found:
        raise RejectedError("bundles.unknown-url", "no bundle is offered at that URL", status=404, url=url)
    if not found[0].is_by_hand:
        raise RejectedError(
            "bundles.made",
            "this bundle was made, not added, and would be made again",
            hint="`hgfleet repo set --bundle-types` or `--bundle-stores`, or `hgfleet bundles disable`",
        )
    return with_entries(state, [one for one in state.current.entries if one.url != url], stores, now)


def verified_entry(url: str, attributes: dict[str, str], urls: PublicReader) -> ManifestEntry:
    """Fetch a bundle and return its entry. Raises RejectedError, or TransientError without an answer."""
    spec, digest = attributes.get(_SPEC, ""), attributes.get(_DIGEST, "")
    own = {name: value for name, value in attributes.items() if name not in {_SPEC, _DIGEST}}
    kind = kind_of(spec)
    found = urls.read(url)
    if found is None:
        raise RejectedError("bundles.unknown-url", "there is nothing at that URL", status=404, url=url)
    if digest and digest != f"sha256:{found.sha256}":
        raise RejectedError(
            "bundles.other-digest", "the bundle there has another digest", sha256=found.sha256
        )
    entry = ManifestEntry(url, kind, spec, found.size_bytes, found.sha256, attributes=own)
    check_entry(entry)
    return entry


def kind_of(spec: str) -> BundleType:
    """Return the type that a bundle specification names."""
    name, _, rest = spec.partition(";")
    if name == "none-v2" and "stream=v2" in rest.split(";"):
        return BundleType.STREAM_V2
    return _KIND_BY_SPEC.get(name, BundleType.OTHER)
