"""The one parser of what a client asks for over SSH.

A real hg client sends `hg -R <path> serve --stdio`, the path bare when it needs no quoting (Mercurial since
2.4) and in single quotes otherwise (older ones always); a person sends nothing, `clone <name>`,
`repo-group <path>` or `repo-config <path>`.

Promises: whatever the text, parse_command returns a command made of checked values only or raises
RejectedError with a message that repeats nothing of the text; format_command is its inverse, so what runs
is rebuilt from values and never the client's own words. No shell is involved anywhere (A2, A4).
Does not: decide access, know whether the repository exists, or run anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hgfleet.errors import RejectedError
from hgfleet.model.ids import AccountName, RepoPath, parse_repo_path

MAX_COMMAND_LENGTH = 1000  # characters; a path has at most 200

_SERVE = re.compile(r"hg -R (?:'([^']*)'|([^' ]*)) serve --stdio")
_CLONE = re.compile(r"clone ([^ ]+)")
_SHOW = re.compile(r"(repo-group|repo-config) ([^ ]+)")
_PLAIN = re.compile(r"[\x21-\x7e ]*")


@dataclass(frozen=True, slots=True)
class Banner:
    """No command: tell who this is and what they may do."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Speak Mercurial's wire protocol for one repository."""

    path: RepoPath


@dataclass(frozen=True, slots=True)
class Clone:
    """Create an empty repository; `name` alone means one of the account's own."""

    name: RepoPath


@dataclass(frozen=True, slots=True)
class ShowGroup:
    """Tell which groups may push to a repository."""

    path: RepoPath


@dataclass(frozen=True, slots=True)
class ShowConfig:
    """Tell a repository's settings."""

    path: RepoPath


Command = Banner | Serve | Clone | ShowGroup | ShowConfig


def parse_command(text: str | None) -> Command:
    """Parse the requested command, None or "" for a plain login; raise RejectedError otherwise."""
    if not text:
        return Banner()
    _check_form(text)
    if match := _SERVE.fullmatch(text):
        return Serve(_parse_served_path(match[1] if match[1] is not None else match[2]))
    if match := _CLONE.fullmatch(text):
        return Clone(parse_repo_path(match[1]))
    if match := _SHOW.fullmatch(text):
        path = _parse_served_path(match[2])
        return ShowGroup(path) if match[1] == "repo-group" else ShowConfig(path)
    raise _refusal(text)


def format_command(command: Command) -> str:
    """Return the canonical text, which parse_command reads back to an equal command."""
    match command:
        case Banner():
            return ""
        case Serve(path):
            return f"hg -R {path} serve --stdio"
        case Clone(name):
            return f"clone {name}"
        case ShowGroup(path):
            return f"repo-group {path}"
        case ShowConfig(path):
            return f"repo-config {path}"


def clone_target(command: Clone, account: AccountName) -> RepoPath:
    """Return the full path that a `clone` names; RejectedError when there is none of its own."""
    if "/" in command.name:
        return command.name
    return parse_repo_path(f"users/{account.replace('@', '_')}/{command.name}")


def _check_form(text: str) -> None:
    if len(text) > MAX_COMMAND_LENGTH:
        raise RejectedError("command.too-long", f"command longer than {MAX_COMMAND_LENGTH} characters")
    if _PLAIN.fullmatch(text) is None:
        raise RejectedError("command.refused", "command has a character that is not allowed")


def _parse_served_path(text: str) -> RepoPath:
    """Check the path as clients send it: `ssh://host/path/` arrives with its last slash, which is dropped."""
    if text.startswith("/"):
        raise RejectedError(
            "repo.bad-path",
            "bad repository name: it starts with '/'",
            hint="use one slash after the host: ssh://<host>/<repository>",
            status=404,
        )
    return parse_repo_path(text.removesuffix("/"))


def _refusal(text: str) -> RejectedError:
    words = text.split()
    word = words[0] if words else ""
    if word == "edit":
        hint = "ask an operator of this site"
        return RejectedError("command.not-offered", "repositories are not edited over SSH here", hint=hint)
    if word == "clone":
        return RejectedError(
            "command.refused", "not a form of clone that is offered", hint="use `clone <name>`"
        )
    if words[:2] == ["hg", "init"]:
        return RejectedError(
            "command.refused", "repositories are not created by hg init", hint="use `ssh <host> clone <name>`"
        )
    return RejectedError(
        "command.refused",
        "this command is not served here",
        hint="use hg with ssh://<host>/<repository>, or one of clone, repo-group and repo-config",
    )
