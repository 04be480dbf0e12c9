"""Opens what clone bundles need: the stores of the configuration, the reader of public URLs, the policy.

Promises: the one place that turns a store's `kind` into an adapter; nothing is asked yet.
Does not: publish (bundles.publishing).
"""

from __future__ import annotations

from hgfleet.bundles.publishing import BundleStore
from hgfleet.config.bundles_table import BundleStoreSection, attributes_of
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import InvariantError
from hgfleet.ports.object_store import ObjectStore

SERVED_AT = "-/bundle-files"  # on our own mirrors, below which a store's name follows


def open_bundle_stores(config: FleetConfig) -> list[BundleStore]:
    """Open every store, in the file's order. Raises ConfigError."""
    return [open_bundle_store(config, name, store) for name, store in config.stores.items()]


def open_bundle_store(config: FleetConfig, name: str, store: BundleStoreSection) -> BundleStore:
    """Open one store. Raises ConfigError."""
    base_url = store.base_url or f"{config.base_url}/{SERVED_AT}/{name}"
    return BundleStore(name, _open_objects(store), base_url, attributes_of(store.attributes))


def _open_objects(store: BundleStoreSection) -> ObjectStore:
    from hgfleet.adapters.directory_objects import DirectoryObjects

    if store.path is None:  # the configuration was checked
        raise InvariantError("bundles.no-path", "a directory store without a directory")
    return DirectoryObjects(store.path)
