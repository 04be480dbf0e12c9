"""How a copy looked at one applied seq: what a reader needs to see exactly that state again.

Promises: a parsed view is complete and typed; its file names are plain names, never paths.
Does not: read or write files (adapters.view_files) or show anything (hgext.exposed).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import InvariantError, PoisonError
from hgfleet.model.ids import Seq
from hgfleet.model.settings import RepoSettings, parse_repo_settings

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}|")


@dataclass(frozen=True, slots=True)
class View:
    """The state as of `seq`; every length counts a prefix of something that only grows."""

    seq: Seq
    changelog_length: int  # revisions from 0 on, unfiltered
    obsstore_bytes: int
    pushlog_bytes: int
    phaseroots: str  # the name of the file that lies beside the view; "": there was none
    bookmarks: str  # the same
    settings: RepoSettings  # in force at `seq`


def format_view(view: View) -> bytes:
    """Return the JSON form, one line."""
    fields = {name: getattr(view, name) for name in view.__slots__} | {"settings": view.settings.to_json()}
    return json.dumps(fields, sort_keys=True).encode() + b"\n"


def parse_view(data: bytes) -> View:
    """Check the JSON form; raise InvariantError `view.damaged`, for only this host wrote it."""
    try:
        return _checked_view(json.loads(data))
    except (ValueError, KeyError, TypeError, PoisonError) as fault:
        raise InvariantError("view.damaged", "damaged view of a repository", reason=str(fault)) from fault


def _checked_view(fields: Any) -> View:
    numbers = {name: fields[name] for name in ("seq", "changelog_length", "obsstore_bytes", "pushlog_bytes")}
    files = {name: fields[name] for name in ("phaseroots", "bookmarks")}
    if any(type(number) is not int or number < 0 for number in numbers.values()):
        raise ValueError("a length is not a number")
    if any(_FILE_NAME.fullmatch(name) is None for name in files.values()):
        raise ValueError("a file name is not a plain name")
    return View(**numbers, **files, settings=parse_repo_settings(fields["settings"]))
