"""Writes configurations: the commented file that a fleet starts with, and the reference page.

Promises: the file of render_config(), read back, gives an equal configuration; every key of the schema
appears in both, with its comment.
Does not: choose values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from hgfleet.config.bundles_table import BundleStoreSection
from hgfleet.config.host_table import HostSection
from hgfleet.config.location_table import LocationSection
from hgfleet.config.schema import FleetConfig, section_classes
from hgfleet.config.section import Section

_INTRODUCTION = (
    "# Configuration of one hgfleet. Every key is listed; a key that is left out has the value shown here.\n"
    '# Durations are written "250ms", "30s", "5m"; sizes "256KiB", "64MiB".\n'
    "# Relative paths start at this file's directory.\n"
)


def render_default_config(changes: Mapping[tuple[str, str], object]) -> str:
    """Return the commented file with every key at its default, but for `changes`, by (table, key)."""
    return (
        _INTRODUCTION
        + "".join(
            _render_table(table, kind, {key: changes.get((table, key), value) for key, value in keys.items()})
            for table, kind, keys in _defaults()
        )
        + _render_example_stores()
        + _render_example_locations()
        + _render_example_hosts()
    )


def render_config(config: FleetConfig) -> str:
    """Return a configuration in force as a file: paths are absolute, so it may lie anywhere."""
    values = config_values(config)
    tables = "".join(_render_table(table, kind, values[table]) for table, kind in section_classes().items())
    stores = "".join(_render_store(name, store) for name, store in values["bundle_stores"].items())
    arrays = [_render_element(name, table) for name in ("locations", "hosts") for table in values[name]]
    return tables + stores + "".join(arrays)


def config_values(config: FleetConfig) -> dict[str, Any]:
    """Return every value by table and key, as in the file; arrays and "bundle_stores" hold tables."""
    return config.model_dump(mode="json", by_alias=True)


def render_reference() -> str:
    """Return docs/reference/config.md."""
    lines = ["# Configuration", "", _REFERENCE_INTRODUCTION, ""]
    tables: dict[str, type[Section]] = {
        **section_classes(),
        "bundles.stores.NAME": BundleStoreSection,
        "[locations]": LocationSection,
        "[hosts]": HostSection,
    }
    for table, kind in tables.items():
        lines += [f"## [{table}]", "", kind.__doc__ or "", "", "| key | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{key}` | `{_render_value(field.default)}` | {field.description} |"
            for key, field in _fields(kind)
        ]
        lines.append("")
    return "\n".join(lines)


_REFERENCE_INTRODUCTION = """\
Generated from `hgfleet.config.schema`. `hgfleet config init` writes the same as a commented file,
`config check` says everything that is wrong with one, `config show` prints what is in force.
Unknown keys are refused. Durations are written `"250ms"`, `"30s"`, `"5m"`, sizes `"256KiB"`, `"64MiB"`;
relative paths start at the file's directory."""


def _defaults() -> Iterator[tuple[str, type[Section], dict[str, Any]]]:
    for table, kind in section_classes().items():
        yield table, kind, {key: field.default for key, field in _fields(kind)}


def _fields(kind: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in kind.model_fields.items():
        yield field.alias or name, field


def _render_table(table: str, kind: type[Section], value_by_key: Mapping[str, object]) -> str:
    lines = [f"\n# {kind.__doc__}\n[{table}]\n"]
    for key, field in _fields(kind):
        lines.append(f"# {field.description}\n{key} = {_render_value(value_by_key[key])}\n")
    return "".join(lines)


def _render_element(array: str, value_by_key: Mapping[str, object]) -> str:
    lines = [f"{key} = {_render_value(value)}\n" for key, value in value_by_key.items()]
    return "".join([f"\n[[{array}]]\n", *lines])


def _render_store(name: str, value_by_key: Mapping[str, object]) -> str:
    lines = [f"{key} = {_render_value(value)}\n" for key, value in value_by_key.items()]
    return "".join([f"\n[bundles.stores.{name}]\n", *lines])


def _render_example_stores() -> str:
    """Return a store as comments: none is needed before somebody has one."""
    lines = [f"\n# {BundleStoreSection.__doc__}\n#\n# [bundles.stores.ams]\n"]
    for key, field in _fields(BundleStoreSection):
        value = _EXAMPLE_STORE.get(key, field.default)
        lines.append(f"# {key} = {_render_value(value)}  # {field.description}\n")
    return "".join(lines)


_EXAMPLE_STORE: dict[str, object] = {
    "path": "/srv/hg-bundles",
    "base_url": "https://bundles.example.org/hg",
    "attributes": ["datacenter=ams"],
}


def _render_example_locations() -> str:
    """Return the array of locations as comments: without one, every client is told of everything."""
    lines = [f"\n# {LocationSection.__doc__}\n"]
    lines += [f"#   {key}: {field.description}\n" for key, field in _fields(LocationSection)]
    for example in _EXAMPLE_LOCATIONS:
        lines.append("#\n# [[locations]]\n")
        lines += [f"# {key} = {_render_value(value)}\n" for key, value in example.items()]
    return "".join(lines)


_EXAMPLE_LOCATIONS: tuple[dict[str, object], ...] = (
    {"attribute": "datacenter=ams", "networks": ["198.51.100.0/24", "2001:db8::/32"]},
    {"attribute": "ec2region", "provider": "aws", "file": "/var/lib/hgfleet/ip-ranges.json"},
)


def _render_example_hosts() -> str:
    """Return the array of hosts as comments: a fleet has none until somebody names its machines."""
    lines = [f"\n# {HostSection.__doc__}\n"]
    lines += [f"#   {key}: {field.description}\n" for key, field in _fields(HostSection)]
    for name, address, roles in _EXAMPLE_HOSTS:
        lines.append(
            f'#\n# [[hosts]]\n# name = "{name}"\n# address = "{address}"\n# roles = {_render_value(roles)}\n'
        )
    return "".join(lines)


_EXAMPLE_HOSTS = (
    ("hg1", "10.0.0.11", ["primary", "coordinator"]),
    ("hg2", "10.0.0.12", ["standby", "coordinator"]),
    ("hg3", "10.0.0.13", ["mirror"]),
    ("hg4", "10.0.0.14", ["mirror"]),
    ("lb1", "10.0.0.10", ["balancer"]),
)


def _render_value(value: object) -> str:
    """JSON's strings, numbers, booleans and arrays of these are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
