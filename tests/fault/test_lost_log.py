"""The log of a running fleet is lost or cut: reads go on, nothing is taken away, and it can be given back."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.copies import read_copy
from tests.support.fleet import Fleet
from tests.support.invariants import check_repository, check_served_pushes, wait_converged
from tests.support.repositories import WorkingCopy

SAME_ON_ALL = ("nodes", "phases", "bookmarks", "obsmarkers", "seq", "pushes")
_numbers = itertools.count(1)


class LosingFleet:
    """A fleet with two repositories, and what can happen to its log."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        self.fleet = fleet
        self.directory = directory
        self.app, self.lib = (f"{name}{next(_numbers)}" for name in ("team/app", "lib"))
        self.work: dict[str, WorkingCopy] = {}
        self._clones = itertools.count(1)

    @property
    def log(self) -> Path:
        [path] = self.fleet.directory.rglob("log.sqlite")
        return path

    def begin(self) -> None:
        """Create two repositories with two pushes each."""
        for path in (self.app, self.lib):
            self.fleet.create(path, "--non-publishing")
            work = WorkingCopy.init(self.fleet.client(), self.directory / path.replace("/", "-"))
            self.work[path] = work
            self.push(path, "first")
            self.push(path, "second")

    def push(self, path: str, text: str) -> None:
        self.work[path].commit(text)
        self.work[path].push(self.fleet.ssh_url(path)).ok()

    def back_up(self) -> Path:
        """Copy the log as a backup does."""
        target = self.directory / "backup.sqlite"
        with closing(sqlite3.connect(self.log)) as log, closing(sqlite3.connect(target)) as copy:
            log.backup(copy)
        return target

    def lose(self, backup: Path | None = None) -> None:
        """Remove the log, or put a backup in its place, whether the fleet runs or not."""
        path = self.log
        draft = path.with_name("restored")
        if backup is not None:
            draft.write_bytes(backup.read_bytes())
        for suffix in ("-wal", "-shm", ""):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if backup is not None:
            draft.rename(path)

    def copies(self, path: str) -> dict[str, dict[str, Any]]:
        """Read every host's copy of a repository, by the id that its first host knows."""
        repository = self.repositories[path]
        roots = {
            d.parent.parent.name: d / "current"
            for d in self.fleet.directory.glob(f"hosts/*/repos/{repository}")
        }
        return {host: read_copy(root.resolve()) for host, root in roots.items()}

    def remember(self) -> None:
        self.repositories = {r["path"]: r["repository"] for r in self.fleet.cli_json("repo", "list")}
        for path in (self.app, self.lib):
            wait_converged(self.fleet, path)
        self.work[self.app].run("bookmark", "-f", "new").ok()
        self.before = {path: self.copies(path) for path in (self.app, self.lib)}

    def clone(self, path: str, url: str) -> str:
        """Clone and return the newest changeset."""
        target = self.directory / f"clone{next(self._clones)}"
        return WorkingCopy.clone(self.fleet.client(), url, target).node("tip")

    def wait_noticed(self) -> None:
        """Wait until the log agent serves what is there now."""
        self.fleet.wait(self._is_noticed, "the loss is reported", 60)

    def _is_noticed(self) -> bool:
        outcome = self.fleet.cli("log", "adopt", "--json")
        return outcome.status == 0 and self.app in outcome.out

    def check_untouched(self) -> None:
        """Check that reads go on, writes are refused, and no copy has changed."""
        for path, mirror in zip((self.app, self.lib), self.fleet.mirror_names(), strict=True):
            url = self.fleet.mirror_url(mirror, path)
            self.fleet.wait(lambda url=url: self._is_read(url), f"{url} is answered", 60)
            assert self.clone(path, url) == self.work[path].node("tip")
        work = self.work[self.app]
        refused = work.push(self.fleet.ssh_url(self.app), "-B", "new")
        assert refused.status == 255, refused
        assert "hgfleet log adopt" in refused.text, refused
        assert {path: self.copies(path) for path in self.before} == self.before

    def _is_read(self, url: str) -> bool:
        return self.fleet.client().run("identify", "--id", url).status == 0

    def check_new_repository(self, path: str) -> None:
        """Check that one can be created, filled and read meanwhile."""
        self.fleet.create(path)
        work = WorkingCopy.init(self.fleet.client(), self.directory / path)
        work.commit("new")
        work.push(self.fleet.ssh_url(path)).ok()
        assert len(check_repository(self.fleet, path)) == 1

    def adopt(self) -> None:
        """Adopt everything, after a look at the report."""
        reported = {row["path"]: row for row in self.fleet.cli_json("log", "adopt")}
        assert {self.app, self.lib} <= set(reported)
        assert reported[self.app]["adopt"]["host"] == "primary"
        self.fleet.cli("log", "adopt", "--yes").ok()
        assert self.fleet.cli_json("log", "adopt") == []

    def check_whole(self, path: str) -> None:
        """Check that all copies are equal, have all that was pushed, and go on from there."""
        pushes = len(self.before[path]["primary"]["pushes"])
        self.push(path, "after")
        wait_converged(self.fleet, path)
        copies = self.copies(path)
        assert set(copies) == {"primary", *self.fleet.mirror_names()}
        for name in SAME_ON_ALL:
            values = [copy[name] for copy in copies.values()]
            assert values[1:] == values[:-1], name
        rows = copies["primary"]["pushes"]
        assert rows[:-1] == self.before[path]["primary"]["pushes"]
        assert [row["id"] for row in rows] == list(range(1, pushes + 2))
        for mirror in self.fleet.mirror_names():
            check_served_pushes(self.fleet, mirror, path, rows)
            assert self.clone(path, self.fleet.mirror_url(mirror, path)) == self.work[path].node()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two mirrors behind one front; each test leaves it whole."""
    fleet = Fleet(tmp_path_factory.mktemp("lost") / "fleet", mirrors=2)
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def losing(fleet: Fleet, tmp_path: Path) -> LosingFleet:
    """Repositories of this test's own."""
    losing = LosingFleet(fleet, tmp_path)
    losing.begin()
    return losing


def test_a_deleted_log_is_given_back_from_the_copies(losing: LosingFleet) -> None:
    losing.remember()
    losing.lose()
    losing.wait_noticed()
    losing.check_untouched()
    losing.check_new_repository("meanwhile")
    losing.adopt()
    losing.check_whole(losing.app)
    losing.check_whole(losing.lib)


@pytest.mark.parametrize("is_running", [True, False])
def test_a_log_restored_from_a_backup_is_brought_up_to_its_copies(
    losing: LosingFleet, *, is_running: bool
) -> None:
    backup = losing.back_up()
    losing.push(losing.app, "since the backup")
    losing.push(losing.lib, "since the backup")
    since = losing.fleet.create(f"since-{is_running}")
    losing.remember()
    if is_running:
        losing.lose(backup)
    else:
        losing.fleet.stop()
        losing.lose(backup)
        losing.fleet.start()
    losing.wait_noticed()
    losing.check_untouched()
    losing.adopt()
    losing.check_whole(losing.app)
    assert since in losing.fleet.paths()


def test_a_mirror_that_was_behind_when_the_log_was_lost_is_built_anew(losing: LosingFleet) -> None:
    fleet = losing.fleet
    losing.remember()
    with fleet.paused("applier", "mirror2"):
        losing.push(losing.app, "mirror2 does not hear of it")
        losing.before = {losing.app: losing.copies(losing.app)}
        losing.lose()
        losing.wait_noticed()
        fleet.cli("log", "adopt", "--yes").ok()
    losing.check_whole(losing.app)
