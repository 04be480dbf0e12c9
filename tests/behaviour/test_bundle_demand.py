"""A repository that is cloned often gets bundles without anybody asking, and then its clones use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet
from tests.support.repositories import WorkingCopy
from tests.support.waiting import wait_until

CLONES = 3
CONFIG = f"""
[bundles]
wanted = "demand"
clones_for_bundles = {CLONES}
interval = "1s"
"""


def test_clones_that_come_to_the_mirrors_bring_bundles_about(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "fleet", mirrors=2, config=CONFIG)
    try:
        fleet.start()
        wanted, quiet = fleet.create("team/wanted"), fleet.create("team/quiet")
        for path in (wanted, quiet):
            work = WorkingCopy.init(fleet.client(), tmp_path / path.rpartition("/")[2])
            work.commit("a change")
            work.push(fleet.ssh_url(path)).ok()
        for number in range(CLONES):
            fleet.client().run("clone", fleet.https_url(wanted), str(tmp_path / f"clone{number}")).ok()
        fleet.client().run("clone", fleet.https_url(quiet), str(tmp_path / "once")).ok()
        manifest = fleet.https_url(f"{wanted}?cmd=clonebundles")
        wait_until(
            lambda: fleet.fetch(manifest).body,
            what="bundles of what is cloned often",
            deadline_seconds=60,
            explain=fleet.explain,
        )
        cloned = fleet.client().run("clone", fleet.https_url(wanted), str(tmp_path / "bundled")).ok()
        assert "applying clone bundle from" in cloned.text
        assert fleet.fetch(fleet.https_url(f"{quiet}?cmd=clonebundles")).body == b""
        _check_listed_demand(fleet, wanted)
    finally:
        fleet.close()


def _check_listed_demand(fleet: Fleet, path: str) -> None:
    """Check what operators are shown of it, once both mirrors have told."""

    def demand() -> dict[str, Any]:
        [place] = json.loads(fleet.cli("bundles", "list", path, "--demand", "--json").ok().out)
        listed: dict[str, Any] = place
        return listed

    asked = 2  # by us above, when the manifest had appeared, and by the last clone
    wait_until(lambda: demand()["by_bundle"]["clones"] == asked, what="the last clone is counted")
    listed = demand()
    assert (listed["location"], listed["has_store"], listed["clones"]) == ("", False, CLONES + asked)
    assert listed["from_origin"]["no-bundles"]["clones"] == CLONES
    assert listed["from_origin"]["no-bundles"]["bytes"] > 0
    table = fleet.cli("bundles", "list", "--demand").ok().out
    assert "anywhere else" in table
    assert "no-bundles" in table
