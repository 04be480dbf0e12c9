"""A repository's settings."""

from typing import Any

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import BundlePolicy, Wanted
from hgfleet.model.settings import BundleSettings, RepoSettings, parse_repo_settings

BUNDLES = BundleSettings(Wanted.ON, (BundleType.ZSTD, BundleType.PACKED1), 3600.0, 0.5, ("ams",))
FULL = RepoSettings(("scm", "release"), is_publishing=False, description="ünï", bundles=BUNDLES)


@pytest.mark.parametrize("settings", [RepoSettings(), FULL])
def test_settings_are_read_back(settings: RepoSettings) -> None:
    assert parse_repo_settings(settings.to_json()) == settings


@pytest.mark.parametrize(
    "values",
    [
        None,
        "",
        {},
        FULL.to_json() | {"hooks": "rm"},
        FULL.to_json() | {"writers": "scm"},
        FULL.to_json() | {"writers": [1]},
        FULL.to_json() | {"is_publishing": 1},
        FULL.to_json() | {"description": None},
        FULL.to_json() | {"description": "\ud800"},
        FULL.to_json() | {"bundles": None},
        FULL.to_json() | {"bundles": {"wanted": "perhaps"}},
        FULL.to_json() | {"bundles": {"types": "zstd"}},
        FULL.to_json() | {"bundles": {"types": ["bzip2"]}},
        FULL.to_json() | {"bundles": {"growth": -1}},
        FULL.to_json() | {"bundles": {"max_age_seconds": True}},
        FULL.to_json() | {"bundles": {"stores": [1]}},
        FULL.to_json() | {"bundles": {"hooks": "rm"}},
    ],
)
def test_unknown_or_damaged_settings_are_not_dropped(values: Any) -> None:
    with pytest.raises(PoisonError) as poison:
        parse_repo_settings(values)
    assert poison.value.code == "settings.damaged"


def test_what_older_releases_do_not_know_is_left_out_while_it_says_nothing() -> None:
    assert RepoSettings(("scm",)).to_json().keys() == {"writers", "is_publishing", "description"}


def test_what_a_repository_does_not_say_of_its_bundles_is_as_the_site_has_it() -> None:
    site = BundlePolicy(wanted=Wanted.DEMAND, growth=0.1, max_age_seconds=60.0)

    assert BundleSettings().policy(site) == site
    assert BundleSettings(wanted=Wanted.OFF, growth=0.0).policy(site) == BundlePolicy(
        wanted=Wanted.OFF, growth=0.0, max_age_seconds=60.0
    )
