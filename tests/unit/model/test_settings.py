"""A repository's settings."""

from typing import Any

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.settings import RepoSettings, parse_repo_settings

FULL = RepoSettings(("scm", "release"), is_publishing=False, description="ünï")


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
    ],
)
def test_unknown_or_damaged_settings_are_not_dropped(values: Any) -> None:
    with pytest.raises(PoisonError) as poison:
        parse_repo_settings(values)
    assert poison.value.code == "settings.damaged"
