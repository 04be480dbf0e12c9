"""The names of things: repositories, paths, changesets, hosts, accounts, positions.

Promises: a value of one of these types was checked when it was parsed, so nothing behind the parser has to
ask again whether it could be an option, a path out of the tree or a control character.
Does not: know whether the named thing exists.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import NewType

from hgfleet.errors import RejectedError

RepoId = NewType("RepoId", str)  # 32 lower-case hex digits; never reused
RepoPath = NewType("RepoPath", str)  # `team/app`, as parse_repo_path allows it
Node = NewType("Node", str)  # 40 lower-case hex digits
Digest = NewType("Digest", str)  # SHA-256, 64 lower-case hex digits; "" before the first message
Seq = NewType("Seq", int)  # a message's number within its repository, from 1; 0: none yet
Epoch = NewType("Epoch", int)  # grows at each promotion, from 1; 0: none yet
Offset = NewType("Offset", int)  # of the *next* record to read in a partition
Partition = NewType("Partition", int)
PushId = NewType("PushId", int)  # from 1, no gaps, one per push that adds changesets
HostName = NewType("HostName", str)
AccountName = NewType("AccountName", str)

NULL_NODE = Node("0" * 40)
NO_DIGEST = Digest("")
CATALOGUE = RepoId("0" * 32)  # stands for the catalogue wherever a repository's seq is meant

MAX_PATH_LENGTH = 200  # characters, the whole path
MAX_PART_LENGTH = 100

_HEX32 = re.compile(r"[0-9a-f]{32}")
_HEX40 = re.compile(r"[0-9a-f]{40}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,99}")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader of a partition stands: the next offset *and* the epoch in force there."""

    offset: Offset
    epoch: Epoch


START = Position(Offset(0), Epoch(0))


def new_repo_id() -> RepoId:
    """Return an id that no repository has had or will have."""
    return RepoId(uuid.uuid4().hex)


def parse_repo_id(text: str) -> RepoId:
    """Check 32 hex digits; raise RejectedError `repo.bad-id` otherwise."""
    if _HEX32.fullmatch(text) is None:
        raise RejectedError("repo.bad-id", "not a repository id", status=404)
    return RepoId(text)


def parse_repo_path(text: str) -> RepoPath:
    """Check a repository's public path (COMPAT section 2); raise RejectedError `repo.bad-path` otherwise."""
    reason = _path_fault(text)
    if reason:
        raise RejectedError(
            "repo.bad-path",
            f"bad repository name: {reason}",
            hint="use parts of letters, digits, '.', '_' and '-', separated by '/'",
            status=404,
        )
    return RepoPath(text)


def _path_fault(text: str) -> str:
    if not text:
        return "it is empty"
    if len(text) > MAX_PATH_LENGTH:
        return f"it is longer than {MAX_PATH_LENGTH} characters"
    for part in text.split("/"):
        if not part:
            return "it has an empty part"
        if len(part) > MAX_PART_LENGTH:
            return f"a part is longer than {MAX_PART_LENGTH} characters"
        if _PART.fullmatch(part) is None:
            return "a part has a character that is not allowed, or starts with one that may not start it"
        if part.lower().endswith((".hg", ".git")):
            return "a part ends in .hg or .git"
    return ""


def parse_node(text: str) -> Node:
    """Check a full 40-digit changeset id; raise RejectedError `node.bad` otherwise."""
    if _HEX40.fullmatch(text) is None:
        raise RejectedError("node.bad", "not a full changeset id")
    return Node(text)


def parse_digest(text: str) -> Digest:
    """Check a SHA-256 in hex, or "" (nothing before); raise RejectedError `digest.bad` otherwise."""
    if text and _HEX64.fullmatch(text) is None:
        raise RejectedError("digest.bad", "not a SHA-256 digest")
    return Digest(text)


def parse_host_name(text: str) -> HostName:
    """Check a host's name (lower case, as in DNS); raise RejectedError `host.bad-name` otherwise."""
    if _HOST.fullmatch(text) is None:
        raise RejectedError(
            "host.bad-name", "bad host name", hint="use lower-case letters, digits, '-' and '.'"
        )
    return HostName(text)


def parse_account_name(text: str) -> AccountName:
    """Check an account's name; raise RejectedError `account.bad-name` otherwise."""
    if _ACCOUNT.fullmatch(text) is None:
        raise RejectedError(
            "account.bad-name",
            "bad account name",
            hint="use letters, digits, and '.', '_', '+', '@', '-' inside",
        )
    return AccountName(text)
