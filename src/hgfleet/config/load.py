"""Reads the configuration file into frozen typed values, or says everything that is wrong with it.

Promises: all problems are reported at once, each with its path in the file; an unknown key is refused with
the nearest known one; relative paths are taken from the file's own directory.
Does not: look for the file (cli.find_fleet) or touch anything that it names.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hgfleet.config.bundles_table import BundleStoreSection
from hgfleet.config.host_table import HostSection
from hgfleet.config.hosts import find_host_conflicts
from hgfleet.config.location_table import LocationSection
from hgfleet.config.schema import FleetConfig, find_conflicts, section_classes
from hgfleet.config.section import Section
from hgfleet.errors import ConfigError

Tables = Mapping[str, Any]
SomeSection = TypeVar("SomeSection", bound=Section)
HOSTS, LOCATIONS = "hosts", "locations"  # the arrays of tables
BUNDLES, STORES = "bundles", "stores"  # the one table that has tables in it


def load_config(path: Path) -> FleetConfig:
    """Read a file; raise ConfigError `config.missing` or `config.invalid` (context `problems`)."""
    return parse_config(read_tables(path), path)


def read_tables(path: Path) -> dict[str, Any]:
    """Return the file's tables as they stand; raise ConfigError when it is absent or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            "config.missing",
            "no configuration here",
            hint="`hgfleet up` makes one; --dir, --config, HGFLEET_DIR or HGFLEET_CONFIG name another place",
            path=path,
        ) from error
    except OSError as error:
        reason = error.strerror
        raise ConfigError(
            "config.unreadable", "the configuration cannot be read", path=path, reason=reason
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(path, [str(error)]) from error


def parse_config(tables: Tables, path: Path) -> FleetConfig:
    """Check the tables of the file `path`; raise ConfigError `config.invalid`."""
    base = path.absolute().parent
    problems = list(_unknown_tables(tables))
    tables, store_tables = _without_stores(tables)
    sections: dict[str, Section] = {}
    for name, kind in section_classes().items():
        try:
            sections[name] = kind.model_validate(tables.get(name, {}), context={"base": base})
        except ValidationError as error:
            problems += [_describe(name, kind, detail) for detail in error.errors(include_url=False)]
    hosts, host_problems = _parse_array(HOSTS, HostSection, tables.get(HOSTS, []), base)
    locations, location_problems = _parse_array(LOCATIONS, LocationSection, tables.get(LOCATIONS, []), base)
    stores, store_problems = _parse_stores(store_tables, base)
    of_tables = [*host_problems, *location_problems, *store_problems]
    problems += of_tables
    if len(sections) == len(section_classes()) and not of_tables:
        arrays = {HOSTS: hosts, LOCATIONS: locations}
        config = FleetConfig.model_validate({**sections, **arrays, "bundle_stores": stores})
        problems += [*find_conflicts(config), *find_host_conflicts(config)]
    if problems:
        raise _invalid(path, problems)
    return config


def _parse_array(
    name: str, kind: type[SomeSection], tables: object, base: Path
) -> tuple[tuple[SomeSection, ...], list[str]]:
    """Return the tables of an array that could be read, and what is wrong with the others."""
    if not isinstance(tables, list):
        return (), [f"{name}: expected an array of tables, written [[{name}]]"]
    parsed: list[SomeSection] = []
    problems: list[str] = []
    for place, table in enumerate(tables):
        try:
            parsed.append(kind.model_validate(table, context={"base": base}))
        except ValidationError as error:
            details = error.errors(include_url=False)
            problems += [_describe(f"{name}[{place}]", kind, detail) for detail in details]
    return tuple(parsed), problems


def _without_stores(tables: Tables) -> tuple[Tables, object]:
    """Return the tables with nothing but keys in [bundles], and its stores."""
    bundles = tables.get(BUNDLES)
    if not isinstance(bundles, dict) or STORES not in bundles:
        return tables, {}
    keys = {name: value for name, value in bundles.items() if name != STORES}
    return {**tables, BUNDLES: keys}, bundles[STORES]


def _parse_stores(tables: object, base: Path) -> tuple[dict[str, BundleStoreSection], list[str]]:
    """Return the stores that could be read, and what is wrong with the others."""
    if not isinstance(tables, dict):
        return {}, [f"{BUNDLES}.{STORES}: expected tables, written [{BUNDLES}.{STORES}.NAME]"]
    stores: dict[str, BundleStoreSection] = {}
    problems: list[str] = []
    for name, table in tables.items():
        try:
            stores[name] = BundleStoreSection.model_validate(table, context={"base": base})
        except ValidationError as error:
            place = f"{BUNDLES}.{STORES}.{name}"
            details = error.errors(include_url=False)
            problems += [_describe(place, BundleStoreSection, detail) for detail in details]
    return stores, problems


def override(tables: Tables, changes: Mapping[tuple[str, str], object]) -> dict[str, Any]:
    """Return the tables with some values replaced, by (table, key)."""
    result = {name: dict(table) if isinstance(table, dict) else table for name, table in tables.items()}
    for (table, key), value in changes.items():
        result.setdefault(table, {})[key] = value
    return result


def _unknown_tables(tables: Tables) -> Iterator[str]:
    known = [*section_classes(), HOSTS, LOCATIONS]
    for name in sorted(tables.keys() - set(known)):
        yield f"{name}: unknown{_near_miss(name, known)}"


def _describe(section: str, kind: type[Section], detail: ErrorDetails) -> str:
    path = section + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        keys = [field.alias or name for name, field in kind.model_fields.items()]
        return f"{path}: unknown{_near_miss(str(detail['loc'][-1]), keys)}"
    if detail["type"] in {"model_type", "model_attributes_type"}:
        return f"{path}: expected a table"
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{path}: {text}, not {detail['input']!r}"


def _near_miss(name: str, known: list[str]) -> str:
    longer_or_shorter = [key for key in known if name.startswith(f"{key}_") or key.startswith(f"{name}_")]
    near = longer_or_shorter or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _invalid(path: Path, problems: list[str]) -> ConfigError:
    return ConfigError(
        "config.invalid",
        "the configuration is not valid",
        hint="\n".join(problems),
        path=path,
        problems=len(problems),
    )
