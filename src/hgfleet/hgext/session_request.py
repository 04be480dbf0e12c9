"""The requests of the session server's socket, checked.

Promises: every field of a parsed request has its type and form; anything else is RejectedError
`sessions.bad-request`.
Does not: trust or distrust the sender; only our own user can connect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hgfleet.errors import RejectedError
from hgfleet.model.bundle_manifest import ANYWHERE, Place
from hgfleet.model.ids import (
    AccountName,
    Partition,
    RepoId,
    RepoPath,
    parse_account_name,
    parse_repo_id,
    parse_repo_path,
)


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """One SSH session, let in by the gate."""

    account: AccountName
    pusher: AccountName  # the account, or whom a service account pushes for
    key: str  # the fingerprint of the one that was proved
    groups: frozenset[str]  # at the time of the request; a write asks again (session_rights)
    path: RepoPath
    repository: RepoId
    partition: Partition
    client_address: str
    trace: str
    place: Place = ANYWHERE

    @property
    def description(self) -> dict[str, Any]:
        """What `status` and the log say about the session."""
        names = ("account", "path", "repository", "trace")
        return {"op": "serve"} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class CatchUpRequest:
    """Bring one copy to the end of its log, or build it anew from the log's start."""

    repository: RepoId
    partition: Partition
    is_rebuild: bool = False

    @property
    def description(self) -> dict[str, Any]:
        """What `status` and the log say about it."""
        return {"op": "catch_up", "account": "", "path": "", "repository": self.repository, "trace": ""}


def parse_serve(header: dict[str, Any]) -> ServeRequest:
    """Check a `serve` request; `pusher` is optional, and so is `place`, which the server itself adds."""
    groups = header.get("groups")
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise _bad("groups")
    account = parse_account_name(_text(header, "account"))
    return ServeRequest(
        account=account,
        pusher=parse_account_name(header.get("pusher") or account),
        key=_text(header, "key"),
        groups=frozenset(groups),
        path=parse_repo_path(_text(header, "path")),
        repository=parse_repo_id(_text(header, "repository")),
        partition=_partition(header),
        client_address=_text(header, "client_address"),
        trace=_text(header, "trace"),
        place=_place(header),
    )


def parse_catch_up(header: dict[str, Any]) -> CatchUpRequest:
    """Check a `catch_up` request; `is_rebuild` is optional."""
    is_rebuild = header.get("is_rebuild", False)
    if not isinstance(is_rebuild, bool):
        raise _bad("is_rebuild")
    return CatchUpRequest(parse_repo_id(_text(header, "repository")), _partition(header), is_rebuild)


def _place(header: dict[str, Any]) -> Place:
    match header.get("place"):
        case None:
            return ANYWHERE
        case [str(name), str(value), bool(is_fast)]:
            return Place(name, value, is_fast)
    raise _bad("place")


def _partition(header: dict[str, Any]) -> Partition:
    value = header.get("partition")
    if type(value) is not int or value < 0:
        raise _bad("partition")
    return Partition(value)


def _text(header: dict[str, Any], name: str) -> str:
    value = header.get(name)
    if not isinstance(value, str):
        raise _bad(name)
    return value


def _bad(name: str) -> RejectedError:
    return RejectedError("sessions.bad-request", "a field is missing or of the wrong type", field=name)
