"""Gives memory back while a large changegroup passes through this process.

Mercurial makes an object per file that a changegroup touches, and each keeps the last text that it read or
wrote. They are garbage in cycles, which Python collects by the number of objects, not by their size: twenty
files of 10 MB stayed in memory to the end, twice in a push.

Promises: what is garbage is collected each time that so many bytes have passed, in or out.
Does not: bound what is in use: one revision is in memory as a whole, its delta beside it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from mercurial import changegroup, extensions

COLLECTED_BYTES = 32 * 1024 * 1024


def collecting(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a changegroup that is being made."""
    passed = 0
    for chunk in chunks:
        yield chunk
        passed += len(chunk)
        if passed >= COLLECTED_BYTES:
            passed = 0
            gc.collect()


def uisetup() -> None:
    """Have changegroups that are taken in collected after, too; may be called again."""
    if getattr(changegroup.cg1unpacker, "hgfleet_is_collecting", False):
        return
    changegroup.cg1unpacker.hgfleet_is_collecting = True
    changegroup.cg1unpacker.hgfleet_passed = 0
    extensions.wrapfunction(changegroup.cg1unpacker, "_chunklength", _chunklength)


def _chunklength(orig: Any, unpacker: Any) -> int:
    length: int = orig(unpacker)
    unpacker.hgfleet_passed += length
    if unpacker.hgfleet_passed >= COLLECTED_BYTES:
        unpacker.hgfleet_passed = 0
        gc.collect()
    return length
