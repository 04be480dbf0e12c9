"""The gate decides from parsed values who may ask for what, and says why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hgfleet.adapters.ssh_keys import PublicKey
from hgfleet.errors import InDoubtError, RejectedError, TransientError
from hgfleet.model.client_line import MAX_LENGTH, client_line
from hgfleet.model.command import Clone, Serve
from hgfleet.model.ids import AccountName, RepoPath
from hgfleet.ports.directory import Account
from hgfleet.ports.ssh_front import ON_BEHALF_VARIABLE, Visit
from hgfleet.ssh.gate import Site, admit, banner, first_settings, own_group, planned_path

SITE = Site(
    name="a site",
    creators=frozenset({"creators"}),
    default_writers=("developers",),
    service_accounts=frozenset({"lander"}),
)
KEY = PublicKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "")
SERVE = "hg -R team/app serve --stdio"


def account(name: str = "alice", *groups: str, is_enabled: bool = True) -> Account:
    return Account(AccountName(name), is_enabled, frozenset(groups), (KEY.text,))


def visit(command: str | None, name: str = "alice", **variables: str) -> Visit:
    return Visit(name, "192.0.2.1", command, variables, key_fingerprint=KEY.fingerprint)


def test_an_enabled_account_is_admitted_with_its_groups_and_its_own() -> None:
    admission = admit(visit(SERVE), account("alice", "developers"), SITE)
    assert admission.command == Serve(RepoPath("team/app"))
    assert admission.groups == {"developers", own_group(AccountName("alice"))}
    assert admission.pusher == "alice"


@pytest.mark.parametrize("command", [None, SERVE, "clone x", "nonsense"])
def test_a_disabled_account_is_told_so_whatever_it_asks_for(command: str | None) -> None:
    with pytest.raises(RejectedError) as caught:
        admit(visit(command), account(is_enabled=False), SITE)
    assert caught.value.code == "account.disabled"


def test_an_account_that_was_removed_since_its_login_is_refused() -> None:
    with pytest.raises(RejectedError) as caught:
        admit(visit(SERVE), None, SITE)
    assert caught.value.code == "account.unknown"


def test_a_key_that_was_taken_away_opens_no_session_over_a_connection_that_is_still_there() -> None:
    other = PublicKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIQ==", "")
    with pytest.raises(RejectedError) as caught:
        admit(visit(SERVE), replace(account("alice", "developers"), keys=(other.text,)), SITE)
    assert caught.value.code == "account.key-removed"
    with pytest.raises(RejectedError):
        admit(replace(visit(SERVE), key_fingerprint=""), account("alice"), SITE)


def test_only_a_configured_service_account_pushes_for_a_person() -> None:
    person = {ON_BEHALF_VARIABLE: "carol"}
    assert admit(visit(SERVE, "lander", **person), account("lander"), SITE).pusher == "carol"
    assert admit(visit(SERVE, "alice", **person), account("alice"), SITE).pusher == "alice"


def test_a_service_account_can_only_name_what_is_an_account_name() -> None:
    with pytest.raises(RejectedError):
        admit(visit(SERVE, "lander", **{ON_BEHALF_VARIABLE: "x\ny"}), account("lander"), SITE)


def test_the_banner_says_who_you_are_and_what_you_may_do() -> None:
    text = banner(admit(visit(None), account("alice", "developers"), SITE), SITE)
    assert "alice" in text
    assert "developers" in text
    assert "may not create" in text
    assert "account:" not in text
    assert "may create" in banner(admit(visit(None), account("alice", "creators"), SITE), SITE)


def test_creating_needs_one_of_the_sites_creators_groups() -> None:
    command = Clone(RepoPath("notes"))
    with pytest.raises(RejectedError) as caught:
        planned_path(command, admit(visit("clone notes"), account("alice", "developers"), SITE), SITE)
    assert caught.value.code == "access.create"
    creator = admit(visit("clone notes"), account("alice", "creators"), SITE)
    assert planned_path(command, creator, SITE) == "users/alice/notes"


def test_ones_own_repository_is_written_by_its_account_alone() -> None:
    creator = admit(visit("clone notes"), account("alice", "creators", "developers"), SITE)
    assert first_settings(RepoPath("users/alice/notes"), creator, SITE).writers == ("account:alice",)
    assert first_settings(RepoPath("team/notes"), creator, SITE).writers == ("developers",)
    assert first_settings(RepoPath("users/bob/notes"), creator, SITE).writers == ("developers",)


def test_nothing_was_changed_is_said_of_what_can_be_tried_again_only() -> None:
    lines = [
        client_line(kind("a.code", "the reason", hint="a hint"))
        for kind in (RejectedError, TransientError, InDoubtError)
    ]
    assert lines == [
        "abort: the reason (a hint)",
        "abort: temporarily unavailable, nothing was changed: the reason (a hint)",
        "abort: not confirmed: it may still appear; push again to find out (a hint)",
    ]


def test_a_line_to_a_client_is_one_line() -> None:
    line = client_line(RejectedError("a.code", "one\ntwo\x1b[31m\x00" + "x" * 10_000))
    assert line.isprintable()
    assert len(line) <= MAX_LENGTH
