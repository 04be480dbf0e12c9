"""Something else has written to the primary's copy: writes are refused until it is built anew."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.invariants import check_repository
from tests.support.repositories import WorkingCopy


def test_an_altered_copy_refuses_pushes_is_read_on_and_is_built_anew_on_demand(
    fleet: Fleet, repository: str, tmp_path: Path
) -> None:
    fleet.create(repository, "--non-publishing")
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    node = work.commit("first")
    work.push(fleet.ssh_url(repository)).ok()
    check_repository(fleet, repository)
    primary = Path(fleet.cli_json("repo", "show", repository)["copies"][0]["path"])
    (primary / ".hg" / "bookmarks").write_text(f"{node} strange\n")
    work.commit("second")

    refused = work.push(fleet.ssh_url(repository))
    assert refused.status != 0
    assert "this copy was changed by something other than hgfleet" in refused.text
    assert "nothing was changed" in refused.text
    assert "hgfleet repo reconcile" in refused.text
    assert work.run("identify", "-r", node, fleet.ssh_url(repository)).status == 0

    verified = fleet.cli("repo", "verify", repository, "--json")
    assert (verified.status, json.loads(verified.out)["verdict"]) == (1, "differs"), verified
    assert "copies at one seq are not equal" in verified.err

    report = fleet.cli("repo", "reconcile", repository)
    assert (report.status, "from 2 messages" in report.text) == (1, True), report
    fleet.cli("repo", "reconcile", repository, "--yes").ok()
    assert fleet.cli_json("repo", "verify", repository)["verdict"] == "equal"

    work.push(fleet.ssh_url(repository)).ok()
    assert len(check_repository(fleet, repository)) == 2
    assert (primary / ".hg" / "bookmarks").read_text() == f"{node} strange\n"
