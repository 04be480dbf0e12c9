"""The files by which a copy's applied states become what its readers see.

Beside a repository's store lies one view per applied seq that may still be exposed,
`hgfleet-views/<seq>.json` with hard links of the files that are replaced as a whole. `hgfleet-exposed` is the
content of the view in force.

Promises: every step is one rename or one link, so a crash between any two leaves the old view or the new one
in force, never a mixture, and repeating the call completes it. What is exposed never goes backwards. A view
that a reader has loaded stays whole: nothing that it needs lies in files that are pruned later.
Does not: know how Mercurial stores anything (hgext.views) or decide when to expose (replication).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hgfleet.errors import InvariantError, TransientError
from hgfleet.model.ids import Seq
from hgfleet.model.view import View, format_view, parse_view

EXPOSED = "hgfleet-exposed"
VIEWS = "hgfleet-views"
_LOAD_ATTEMPTS = 20  # each lost attempt needs one more exposure *and* a prune in between


def write_view(hg_directory: Path, view: View) -> None:
    """Make the view of an applied seq available to `expose`; the files that it names are already there."""
    _replace(hg_directory / VIEWS / f"{view.seq}.json", format_view(view))


def read_view(hg_directory: Path, seq: Seq) -> View | None:
    """Return the view of an applied seq; None if it was not made, is pruned, or lost part in a power cut."""
    view = _read(hg_directory / VIEWS / f"{seq}.json")
    names = (view.phaseroots, view.bookmarks) if view is not None else ()
    is_whole = all((hg_directory / VIEWS / name).exists() for name in names)
    return view if is_whole else None


def read_exposed(hg_directory: Path) -> View | None:
    """Return the view in force, None before the first one."""
    return _read(hg_directory / EXPOSED)


def _read(path: Path) -> View | None:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Nothing here is synced: after a power cut a file may be empty; it is made anew like a missing one.
    return parse_view(data) if data else None


def expose(hg_directory: Path, seq: Seq) -> Seq:
    """Put the view of `seq` in force and return the exposed seq, which is higher if a later one already was.

    Raises InvariantError `view.missing` when that seq has no view: the apply side ensures one.
    """
    current = read_exposed(hg_directory)
    if current is not None and current.seq >= seq:
        return current.seq
    view = read_view(hg_directory, seq)
    if view is None:
        raise InvariantError("view.missing", "no view of this seq", seq=seq, directory=str(hg_directory))
    _replace(hg_directory / EXPOSED, format_view(view))
    return seq


def prune(hg_directory: Path, below: Seq) -> int:
    """Remove the views under `below` except the one in force; return how many went."""
    current = read_exposed(hg_directory)
    kept = {current.seq} if current is not None else set()
    old = {seq for seq in view_seqs(hg_directory) if seq < below} - kept
    for path in list((hg_directory / VIEWS).iterdir()) if old else []:
        if _seq_of(path.name) in old:
            path.unlink(missing_ok=True)
    return len(old)


def view_seqs(hg_directory: Path) -> list[Seq]:
    """Return the seqs that can be exposed, lowest first."""
    with contextlib.suppress(FileNotFoundError):
        names = [path.name for path in (hg_directory / VIEWS).iterdir() if path.suffix == ".json"]
        return sorted(seq for seq in map(_seq_of, names) if seq)
    return []


def _seq_of(name: str) -> Seq:
    """Return the seq that a view's file belongs to, 0 for other files."""
    number = name.partition(".")[0]
    return Seq(int(number) if number.isdecimal() else 0)


def load_exposed(hg_directory: Path) -> tuple[View, bytes | None, bytes | None] | None:
    """Return the view in force with the contents of its phase roots and bookmarks (None: no such file then).

    A concurrent exposure may prune those files between two reads: then the newer view is loaded instead.
    """
    for _ in range(_LOAD_ATTEMPTS):
        view = read_exposed(hg_directory)
        if view is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            phaseroots, bookmarks = _contents(hg_directory, view)
            return view, phaseroots, bookmarks
    raise TransientError("view.changing", "the exposed state changes faster than it can be read")


def _contents(hg_directory: Path, view: View) -> Iterator[bytes | None]:
    for name in (view.phaseroots, view.bookmarks):
        yield (hg_directory / VIEWS / name).read_bytes() if name else None


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
