"""The gate: what one visit may do, decided before anything runs.

Promises: the decision is made from parsed values only; a disabled account is told so and nothing else; a key
that was taken away opens no session, over an old connection neither; an answer that can't be known is
TransientError, never a refusal (A1). Everything that is refused has a code.
Does not: serve sessions, know Mercurial, or judge a push (the session does, under the settings at its seq).
"""

from __future__ import annotations

from dataclasses import dataclass

from hgfleet.adapters.ssh_keys import PublicKey
from hgfleet.errors import RejectedError
from hgfleet.model.access import create_access
from hgfleet.model.command import Clone, Command, clone_target, parse_command
from hgfleet.model.ids import AccountName, RepoPath, parse_account_name
from hgfleet.model.settings import RepoSettings
from hgfleet.ports.directory import Account
from hgfleet.ports.ssh_front import ON_BEHALF_VARIABLE, Visit

OWN_GROUP_PREFIX = "account:"  # a group's name has no colon, so this one has exactly one member


@dataclass(frozen=True, slots=True)
class Site:
    """What the gate needs to know about the fleet."""

    name: str = "hgfleet"
    creators: frozenset[str] = frozenset()
    default_writers: tuple[str, ...] = ()
    service_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Admission:
    """A visit that is let in: who, in which groups, to do what."""

    account: AccountName
    pusher: AccountName
    groups: frozenset[str]
    command: Command


def admit(visit: Visit, account: Account | None, site: Site) -> Admission:
    """Decide whether the visitor may ask for this at all. Raises RejectedError."""
    known = require_standing(account, visit.key_fingerprint)
    command = parse_command(visit.command)
    return Admission(known.name, _pusher(visit, known.name, site), groups_of(known), command)


def require_standing(account: Account | None, key_fingerprint: str) -> Account:
    """Return the account if who came in with this key may still act for it. Raises RejectedError."""
    if account is None:
        raise RejectedError("account.unknown", "there is no such account any more")
    if not account.is_enabled:
        raise RejectedError(
            "account.disabled", "this account is disabled", hint="ask an operator of this site"
        )
    if key_fingerprint not in {PublicKey(key, "").fingerprint for key in account.keys}:
        # A connection outlives the log-in that it began with, and opens new sessions.
        raise RejectedError(
            "account.key-removed", "this key is not the account's any more", hint="log in with another one"
        )
    return account


def groups_of(account: Account) -> frozenset[str]:
    """Return the groups with whose rights an account acts: the directory's, and its own."""
    return account.groups | {own_group(account.name)}


def own_group(account: AccountName) -> str:
    """Return the group that an account alone is in: the writers of its own repositories."""
    return f"{OWN_GROUP_PREFIX}{account}"


def _pusher(visit: Visit, account: AccountName, site: Site) -> AccountName:
    """Return who the pushlog names: a configured service account may push for a person."""
    person = visit.variables.get(ON_BEHALF_VARIABLE)
    if person is None or account not in site.service_accounts:
        return account
    return parse_account_name(person)


def banner(admission: Admission, site: Site) -> str:
    """Return what a plain login shows: who you are, your groups, what you may write."""
    groups = sorted(group for group in admission.groups if not group.startswith(OWN_GROUP_PREFIX))
    may_create = create_access(True, admission.groups, site.creators)
    lines = [
        f"You are {admission.account} on {site.name}.",
        f"Groups: {', '.join(groups) or 'none'}.",
        "You may push to repositories whose writers include one of them, and to your own.",
        f"You may {'' if may_create.is_allowed else 'not '}create repositories: {may_create.reason}.",
    ]
    return "".join(f"{line}\n" for line in lines)


def describe_groups(path: RepoPath, settings: RepoSettings) -> str:
    """Return what `repo-group` shows."""
    return f"{path} may be pushed to by: {', '.join(settings.writers) or 'nobody'}\n"


def describe_settings(settings: RepoSettings) -> str:
    """Return what `repo-config` shows, one setting a line."""
    description = "".join(char if char.isprintable() else "?" for char in settings.description)
    lines = [
        f"description = {description}",
        f"publishing = {'yes' if settings.is_publishing else 'no'}",
        f"writers = {', '.join(settings.writers)}",
    ]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def planned_path(command: Clone, admission: Admission, site: Site) -> RepoPath:
    """Return the path that a `clone` would create. Raises RejectedError `access.create`."""
    create_access(True, admission.groups, site.creators).require(
        "access.create", "you may not create repositories here"
    )
    return clone_target(command, admission.account)


def first_settings(path: RepoPath, admission: Admission, site: Site) -> RepoSettings:
    """Return the settings of a repository that is created: one of its own only its account may write."""
    own = clone_target(Clone(RepoPath(path.rpartition("/")[2])), admission.account)
    return RepoSettings(writers=(own_group(admission.account),) if path == own else site.default_writers)
