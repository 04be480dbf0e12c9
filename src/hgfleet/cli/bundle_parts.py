"""Opens what clone bundles need: the stores of the configuration, the reader of public URLs, the policy.

Promises: the one place that turns a store's `kind` into an adapter; nothing is asked yet.
Does not: publish (bundles.publishing).
"""

from __future__ import annotations

import os
from pathlib import Path

from hgfleet.adapters.hgrc_render import without_mercurial_settings
from hgfleet.adapters.public_url import PublicUrls
from hgfleet.bundles.check_times import CheckPolicy
from hgfleet.bundles.making import MakingOptions
from hgfleet.bundles.publishing import BundleStore, Publisher
from hgfleet.bundles.repository_run import RunOptions
from hgfleet.bundles.turn import TurnOptions
from hgfleet.cli.process_command import process_command
from hgfleet.config.bundles_table import BundleStoreSection, attributes_of, policy_of
from hgfleet.config.hosts import hosts_with
from hgfleet.config.layout import FleetLayout, HostLayout
from hgfleet.config.s3_table import S3Section
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import InvariantError
from hgfleet.ports.object_store import ObjectStore
from hgfleet.runtime.faults import NO_FAULTS, Faults

SERVED_AT = "-/bundle-files"  # on our own mirrors, below which a store's name follows


def run_options(
    layout: FleetLayout, config_path: Path, directory: Path, faults: Faults = NO_FAULTS
) -> RunOptions:
    """Return what looks after bundles on this machine. Raises ConfigError."""
    config, host = layout.config, bundling_host(layout)
    command = process_command(
        "bundle-maker", config=config_path, directory=directory, name="bundle-maker", host=host.name
    )
    making = MakingOptions(
        scratch=host.spool / "bundles",
        command=command,
        environment=without_mercurial_settings(os.environ),
        threads=config.bundles.threads,
        zstd_level=config.bundles.zstd_level,
    )
    return RunOptions(
        host=host.name,
        repositories=host.repositories,
        making=making,
        publisher=Publisher(open_bundle_stores(config), PublicUrls(_further_ca(config)), faults),
        policy=policy_of(config.bundles),
        grace_seconds=config.bundles.grace_seconds,
        faults=faults,
    )


def bundlers_turn(layout: FleetLayout) -> TurnOptions:
    """Return who makes bundles in this fleet, and that it is us."""
    bundlers = [host.name for host in hosts_with(layout.config, "bundler")]
    lease_seconds = layout.config.membership.lease_seconds
    own = layout.own_host
    return TurnOptions(
        host=layout.agent_host.name,
        bundlers=bundlers,
        agent_socket=layout.agent_socket,
        lease_seconds=lease_seconds,
        may_lead=own is not None and own.is_leading,
    )


def check_policy(config: FleetConfig) -> CheckPolicy:
    """Return how often what is advertised is looked at."""
    return CheckPolicy(config.bundles.check_interval_seconds, config.bundles.verify_interval_seconds)


def _further_ca(config: FleetConfig) -> Path | None:
    """Return our own CA, where we have one: our mirrors may be the store."""
    path = config.http.ca_file
    return path if path is not None and path.is_file() else None


def bundling_host(layout: FleetLayout) -> HostLayout:
    """Return whose copies bundles are made of on this machine: a mirror's, never the primary's."""
    return layout.agent_host if layout.own else layout.mirrors[0]


def open_bundle_stores(config: FleetConfig) -> list[BundleStore]:
    """Open every store, in the file's order. Raises ConfigError."""
    return [open_bundle_store(config, name, store) for name, store in config.stores.items()]


def open_bundle_store(config: FleetConfig, name: str, store: BundleStoreSection) -> BundleStore:
    """Open one store. Raises ConfigError."""
    base_url = store.base_url or f"{config.base_url}/{SERVED_AT}/{name}"
    attributes = attributes_of(store.attributes)
    objects = _open_objects(store)
    return BundleStore(name, objects, base_url, attributes, store.expiry_seconds, store.exclusive)


def _open_objects(store: BundleStoreSection) -> ObjectStore:
    if store.kind == "s3":
        from hgfleet.adapters.s3_client import S3Options
        from hgfleet.adapters.s3_objects import S3Objects

        return S3Objects(S3Options(**{name: getattr(store, name) for name in S3Section.model_fields}))
    from hgfleet.adapters.directory_objects import DirectoryObjects

    if store.path is None:  # the configuration was checked
        raise InvariantError("bundles.no-path", "a directory store without a directory")
    return DirectoryObjects(store.path)
