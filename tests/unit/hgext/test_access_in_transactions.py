"""A transaction judges its account by the settings it is made on, whatever its session was told before."""

from pathlib import Path

import pytest
from mercurial import error

from hgfleet.hgext import identity
from hgfleet.model.message import Kind
from hgfleet.model.settings import RepoSettings
from tests.support.local_copies import REPOSITORY, Fleet, commit, files_of


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(identity, "_assumed", [])
    return Fleet.make(tmp_path)


def test_an_account_outside_the_writers_groups_changes_nothing(fleet: Fleet) -> None:
    identity.assume("bob", frozenset({"readers"}), "trace-1")
    before = files_of(fleet.primary)
    with pytest.raises(error.Abort, match="you may not push to this repository; nothing was changed"):
        commit(fleet.repo, "not allowed")
    assert files_of(fleet.primary) == before


def test_a_member_of_a_writers_group_and_an_administrator_change_it(fleet: Fleet) -> None:
    identity.assume("alice", frozenset({"developers"}), "trace-1")
    commit(fleet.repo, "by a member")
    identity._assumed.clear()
    commit(fleet.repo, "by an administrator")
    assert fleet.state.fingerprint.changelog_length == 2


def test_writers_that_changed_since_the_session_began_count(fleet: Fleet) -> None:
    identity.assume("alice", frozenset({"developers"}), "trace-1")
    commit(fleet.repo, "still allowed")
    fleet.agent.write(REPOSITORY, Kind.SETTINGS, {"settings": RepoSettings(writers=("others",)).to_json()})
    with pytest.raises(error.Abort, match="you may not push"):
        commit(fleet.repo, "not any more")
    assert fleet.state.settings.writers == ("others",)
    assert fleet.state.fingerprint.changelog_length == 1
