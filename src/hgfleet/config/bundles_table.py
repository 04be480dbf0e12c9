"""The table [bundles] and its stores, [bundles.stores.NAME]: which clone bundles are made, where they lie.

Promises: a store's name, base URL and attributes are such that entries of a manifest can be made of them.
Does not: ask a store or its URL whether it answers (the bundler does, before anything is named).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hgfleet.config.s3_table import S3Section
from hgfleet.config.section import Count, Networks, Section, setting
from hgfleet.config.units import Duration, FilePath, Names, OptionalFilePath
from hgfleet.errors import RejectedError
from hgfleet.model.bundle_manifest import BundleType, check_attributes
from hgfleet.model.bundle_policy import DEFAULT_KINDS, BundlePolicy, Wanted

OWN_STORE = "own"  # of a machine that serves its bundles itself and has no other store
STORE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_KINDS = tuple(kind for kind in BundleType if kind is not BundleType.OTHER)


def _check_types(names: tuple[str, ...]) -> tuple[str, ...]:
    known = [kind.value for kind in _KINDS]
    if not set(names) <= set(known):
        raise ValueError(f"expected some of {', '.join(known)}")
    return names


def _check_store_attributes(items: tuple[str, ...]) -> tuple[str, ...]:
    if not all("=" in item for item in items):
        raise ValueError('expected attributes such as "ec2region=us-west-2"')
    try:
        check_attributes(attributes_of(items))
    except RejectedError as error:
        raise ValueError(error.message) from error
    return items


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


Rate = Annotated[float, BeforeValidator(_as_float), Field(ge=0)]


def attributes_of(items: tuple[str, ...]) -> dict[str, str]:
    """Return attributes by name from their form in the file, `name=value`."""
    return {name: value for name, _, value in (item.partition("=") for item in items)}


class BundlesSection(Section):
    """Clone bundles: made ahead by the bundler, so that clones cost the mirrors next to nothing."""

    wanted: Literal["on", "off", "demand"] = setting(
        "demand",
        "which repositories that say nothing else have bundles: on, off, or demand (those cloned often)",
    )
    types: Annotated[Names, AfterValidator(_check_types)] = setting(
        [kind.value for kind in _KINDS if kind in DEFAULT_KINDS],
        "what is made: zstd-max, zstd, gzip-v2, gzip-v1, packed1, stream-v2 (the last two are streamed)",
    )
    zstd_level: Annotated[int, Field(ge=1, le=22)] = setting(3, "how hard zstd compresses; zstd-max uses 20")
    threads: Count = setting(1, "threads of one zstd compressor")
    max_age_seconds: Duration = setting(
        "1d", "bundles of this age are made anew if the repository has anything that they lack", key="max_age"
    )
    growth: Rate = setting(
        0.02, "by which part of its changesets a repository grows until they are made anew"
    )
    clones_for_bundles: Rate = setting(10.0, 'full clones a day from which on wanted = "demand" makes them')
    clones_for_maximum: Rate = setting(
        500.0, "full clones a day from which on zstd-max takes the place of zstd"
    )
    keep_seconds: Duration = setting(
        "7d", "how long bundles stay after the last day with enough clones", key="keep"
    )
    grace_seconds: Duration = setting(
        "1d",
        "how long objects stay that no manifest names any more, for clients already told of them",
        key="grace",
    )
    interval_seconds: Duration = setting(
        "5m", "how often the bundler looks what is to be done", key="interval"
    )
    check_interval_seconds: Duration = setting(
        "1h", "how often it asks every advertised URL whether the bundle is there", key="check_interval"
    )
    verify_interval_seconds: Duration = setting(
        "1d", "how often it fetches every advertised bundle whole and compares", key="verify_interval"
    )
    fast_networks: Networks = setting(
        [], "networks so near that a byte costs less than a second of computing: streams come first there"
    )
    locations_interval_seconds: Duration = setting(
        "1m", "how often it is looked whether a file of [[locations]] changed", key="locations_interval"
    )
    advertise: bool = setting(True, "tell clients that clone without the bundles how they are used")
    path: FilePath = setting(
        "bundles", f'directory of the store "{OWN_STORE}", which one machine has where no other is named'
    )


class _StoreKeys(Section):
    kind: Literal["directory", "s3"] = setting(
        "directory", "which adapter: directory (served by any HTTP server) or s3 (the keys from bucket on)"
    )
    path: OptionalFilePath = setting("", "the store's directory")
    base_url: Annotated[str, Field(pattern=r"^(https?://[!-~]+)?$")] = setting(
        "",
        "where clients find its objects, prefix included; "
        '"": the mirrors serve the directory, which they must share then',
    )
    attributes: Annotated[Names, AfterValidator(_check_store_attributes)] = setting(
        [],
        'attributes of its entries, as ["name=value"]: cdn=true, REQUIRESNI=true, ec2region=us-west-2, '
        "gceregion=europe-west1, or lower-case ones of your own",
    )
    expiry_seconds: Duration = setting(
        "0s", 'how long after its last renewal the store removes an object; "0s": never', key="expiry"
    )
    exclusive: bool = setting(
        True, "only this fleet uses it: bundles there that nothing names are removed after bundles.grace"
    )


def served_directories(stores: Mapping[str, BundleStoreSection]) -> tuple[tuple[str, Path], ...]:
    """Return the directories that our own mirrors serve, by store."""
    return tuple((name, store.path) for name, store in stores.items() if store.path and not store.base_url)


class BundleStoreSection(S3Section, _StoreKeys):
    """A place from which clients fetch bundles. One machine that names none serves them itself."""


def own_store(path: Path) -> BundleStoreSection:
    """Return the store of a machine that names none."""
    return BundleStoreSection.model_validate({"path": str(path.absolute())})


def policy_of(bundles: BundlesSection) -> BundlePolicy:
    """Return what holds for repositories that say nothing else."""
    return BundlePolicy(
        wanted=Wanted(bundles.wanted),
        kinds=frozenset(BundleType(name) for name in bundles.types),
        max_age_seconds=bundles.max_age_seconds,
        growth=bundles.growth,
        clones_for_bundles=bundles.clones_for_bundles,
        clones_for_maximum=bundles.clones_for_maximum,
        keep_seconds=bundles.keep_seconds,
    )


def find_store_conflicts(stores: Mapping[str, BundleStoreSection], bundles: BundlesSection) -> Iterator[str]:
    """Yield what is wrong with a store, alone or beside the others."""
    for name, store in stores.items():
        place = f"bundles.stores.{name}"
        if STORE_NAME.fullmatch(name) is None:
            yield f"{place}: expected a name of lower-case letters, digits and hyphens"
        yield from (f"{place}.{problem}" for problem in _find_place_conflicts(store))
        if 0 < store.expiry_seconds < 4 * bundles.interval_seconds:
            yield f"{place}.expiry: is below 4 * bundles.interval, so objects could expire while advertised"
    yield from _find_sni_only(stores)


def _find_place_conflicts(store: BundleStoreSection) -> Iterator[str]:
    if store.kind == "directory":
        if store.path is None:
            yield 'path: is needed with kind = "directory"'
        if store.bucket:
            yield 'bucket: is of a store with kind = "s3"'
        return
    if not store.bucket:
        yield 'bucket: is needed with kind = "s3"'
    if not store.base_url:
        yield "base_url: is needed: a bucket, or the CDN before it, has a URL of its own"
    if store.path is not None:
        yield 'path: is of a store with kind = "directory"'


def _find_sni_only(stores: Mapping[str, BundleStoreSection]) -> Iterator[str]:
    if stores and all("REQUIRESNI=true" in store.attributes for store in stores.values()):
        yield "bundles.stores: all have REQUIRESNI=true; clients without SNI need one without it"
