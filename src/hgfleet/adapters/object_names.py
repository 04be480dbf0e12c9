"""Names of published objects: what may be one, whatever store has it.

Promises: a name is `/`-separated, never leaves its store, and reads the same in a path, a key and a URL.
Does not: choose names (bundles.publishing).
"""

from __future__ import annotations

import re

from hgfleet.errors import RejectedError

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def is_part(text: str) -> bool:
    """Whether the text may stand between two slashes."""
    return _PART.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether the text may name an object."""
    return all(is_part(part) for part in text.split("/"))


def check_name(name: str) -> str:
    """Return the name; raise RejectedError `object.bad-name`."""
    if not is_name(name):
        raise RejectedError("object.bad-name", "not a name for an object", name=name[:200])
    return name
