"""[bundles] and [bundles.stores.NAME]: what is refused, and that what is written reads back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.s3_objects import S3Objects
from hgfleet.cli.bundle_parts import open_bundle_stores
from hgfleet.config.bundles_table import OWN_STORE, policy_of
from hgfleet.config.load import load_config, parse_config
from hgfleet.config.render import render_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import BundlePolicy, Wanted

CDN = {"path": "/srv/cdn", "base_url": "https://cdn.example/hg", "attributes": ["cdn=true"], "expiry": "14d"}
S3 = {"kind": "s3", "bucket": "hg-eu", "base_url": "https://hg-eu.s3.example/x", "prefix": "x/"}
HOSTS = [
    {"name": "hg1", "address": "10.0.0.1", "roles": ["primary", "coordinator"]},
    {"name": "hg2", "address": "10.0.0.2", "roles": ["mirror"]},
]


def parse(bundles: dict[str, Any], **tables: Any) -> FleetConfig:
    return parse_config({"bundles": bundles, **tables}, Path("/etc/hgfleet/hgfleet.toml"))


def problems_of(bundles: dict[str, Any], **tables: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(bundles, **tables)
    return caught.value.hint.splitlines()


def test_what_says_nothing_has_the_models_policy_and_one_store_of_its_own() -> None:
    config = parse({})

    assert policy_of(config.bundles) == BundlePolicy()
    [store] = open_bundle_stores(config)
    assert (store.name, store.base_url) == (OWN_STORE, "https://localhost:8443/-/bundle-files/own")


def test_the_policy_is_what_the_table_says() -> None:
    policy = policy_of(parse({"wanted": "on", "types": ["zstd-max"], "growth": 1, "max_age": "2h"}).bundles)

    assert (policy.wanted, policy.kinds) == (Wanted.ON, {BundleType.ZSTD_MAX})
    assert (policy.growth, policy.max_age_seconds) == (1.0, 7200.0)


def test_named_stores_keep_their_order_and_read_back_the_same_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "hgfleet.toml"
    path.write_text(
        '[bundles.stores.z]\npath = "b"\nbase_url = "http://b.example/"\n'
        '[bundles.stores.a]\npath = "c"\nattributes = ["datacenter=ams, 2"]\n[bundles]\nwanted = "on"\n'
    )
    elsewhere = tmp_path / "run" / "effective.toml"
    elsewhere.parent.mkdir()

    config = load_config(path)
    elsewhere.write_text(render_config(config))

    assert load_config(elsewhere) == config
    assert [store.name for store in open_bundle_stores(config)] == ["z", "a"]
    assert [store.url_of("x") for store in open_bundle_stores(config)] == [
        "http://b.example/x",
        "https://localhost:8443/-/bundle-files/a/x",
    ]
    assert open_bundle_stores(config)[1].attributes == {"datacenter": "ams, 2"}


def test_a_bucket_is_opened_with_everything_that_the_table_says(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    how = {"endpoint": "http://127.0.0.1:1", "region": "eu-1", "credentials_file": str(credentials)}
    config = parse({"stores": {"eu": S3 | how | {"attributes": ["ec2region=eu-1"], "expiry": "7d"}}})

    [store] = open_bundle_stores(config)

    assert isinstance(store.objects, S3Objects)
    options = store.objects.options
    assert (options.bucket, options.prefix, options.endpoint) == ("hg-eu", "x/", "http://127.0.0.1:1")
    assert (options.region, options.credentials_file) == ("eu-1", credentials)
    assert store.url_of("team/a.hg") == "https://hg-eu.s3.example/x/team/a.hg"
    assert config.stores["eu"].expiry_seconds == 7 * 86400


@pytest.mark.parametrize(
    ("bundles", "problem"),
    [
        ({"stores": {"cdn": CDN}}, None),
        ({"stores": 3}, "bundles.stores: expected tables"),
        ({"stores": {"cdn": 3}}, "bundles.stores.cdn: expected a table"),
        ({"stores": {"CDN": CDN}}, "bundles.stores.CDN: expected a name"),
        ({"stores": {"cdn": CDN | {"pth": "x"}}}, "bundles.stores.cdn.pth: unknown; did you mean path?"),
        ({"stores": {"cdn": CDN | {"kind": "ftp"}}}, "bundles.stores.cdn.kind"),
        ({"stores": {"cdn": CDN | {"path": ""}}}, "bundles.stores.cdn.path: is needed"),
        ({"stores": {"cdn": CDN | {"base_url": "ftp://x"}}}, "bundles.stores.cdn.base_url"),
        ({"stores": {"cdn": CDN | {"attributes": ["cdn"]}}}, "bundles.stores.cdn.attributes"),
        ({"stores": {"cdn": CDN | {"attributes": ["BUNDLESPEC=x"]}}}, "bundles.stores.cdn.attributes"),
        ({"stores": {"cdn": CDN | {"expiry": "1m"}}}, "bundles.stores.cdn.expiry: is below"),
        ({"stores": {"cdn": CDN | {"attributes": ["REQUIRESNI=true"]}}}, "clients without SNI"),
        ({"stores": {"eu": S3}}, None),
        ({"stores": {"eu": S3 | {"bucket": ""}}}, "bundles.stores.eu.bucket: is needed"),
        ({"stores": {"eu": S3 | {"base_url": ""}}}, "bundles.stores.eu.base_url: is needed"),
        (
            {"stores": {"eu": S3 | {"path": "/srv"}}},
            'bundles.stores.eu.path: is of a store with kind = "directory"',
        ),
        (
            {"stores": {"eu": CDN | {"bucket": "b"}}},
            'bundles.stores.eu.bucket: is of a store with kind = "s3"',
        ),
        ({"stores": {"eu": S3 | {"endpoint": "s3.example"}}}, "bundles.stores.eu.endpoint"),
        ({"types": ["bzip2"]}, "bundles.types: expected some of zstd-max"),
        ({"types": ["other"]}, "bundles.types: expected some of zstd-max"),
        ({"wanted": "yes"}, "bundles.wanted"),
        ({"growth": -1}, "bundles.growth"),
        ({"zstd_level": 23}, "bundles.zstd_level"),
    ],
)
def test_a_wrong_setting_is_named(bundles: dict[str, Any], problem: str | None) -> None:
    if problem is None:
        parse(bundles)
    else:
        [found] = problems_of(bundles)
        assert problem in found


def test_hosts_on_several_machines_need_urls_of_their_stores() -> None:
    tables = {"hosts": HOSTS, "site": {"url": "https://hg.example"}}

    problems = problems_of({"stores": {"a": {"path": "/srv/a"}}}, **tables)

    assert any(problem.startswith("bundles.stores.a.base_url: is needed") for problem in problems)
