"""The files by which a copy's applied states become what its readers see.

Beside a repository's store lies one view per applied seq that may still be exposed,
`hgfleet-views/<seq>.json` with hard links of the files that are replaced as a whole. Exposed, it becomes
`hgfleet-exposed`, the view in force: the same file, renamed, as every file made costs more than the rest.

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

from hgfleet.errors import TransientError
from hgfleet.model.ids import Seq
from hgfleet.model.view import View, format_view, parse_view

EXPOSED = "hgfleet-exposed"
VIEWS = "hgfleet-views"
_SCRATCH = ".new"
_LOAD_ATTEMPTS = 20  # each lost attempt needs one more exposure *and* a prune in between


def write_view(hg_directory: Path, view: View) -> None:
    """Make the view of an applied seq available to `expose`; the files that it names are already there.

    Nobody looks for a new one before it is whole, so that needs no other name first. One that is made again
    may be put in force at any moment, and is then what readers load: it is replaced, never written to.
    """
    path = _view_path(hg_directory, view.seq)
    target = f"{path}{_SCRATCH}" if os.path.exists(path) else path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, format_view(view))
        finally:
            os.close(descriptor)
        if target != path:
            os.replace(target, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _view_path(hg_directory: Path, seq: Seq) -> str:
    return os.path.join(hg_directory, VIEWS, f"{seq}.json")


def read_view(hg_directory: Path, seq: Seq) -> View | None:
    """Return the view of a seq that can be put in force.

    None if it was not made, is in force already, is pruned, or lost part in a power cut.
    """
    view = _read(_view_path(hg_directory, seq))
    return view if view is not None and _is_whole(hg_directory, view) else None


def is_viewed(hg_directory: Path, seq: Seq) -> bool:
    """Whether the view of a seq is in force or can be put in force."""
    if read_view(hg_directory, seq) is not None:
        return True
    exposed = read_exposed(hg_directory)
    return exposed is not None and exposed.seq == seq and _is_whole(hg_directory, exposed)


def _is_whole(hg_directory: Path, view: View) -> bool:
    names = (view.phaseroots, view.bookmarks)
    return all(os.path.exists(os.path.join(hg_directory, VIEWS, name)) for name in names if name)


def read_exposed(hg_directory: Path) -> View | None:
    """Return the view in force, None before the first one."""
    return _read(os.path.join(hg_directory, EXPOSED))


def _read(path: str) -> View | None:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.readall()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Nothing here is synced: after a power cut a file may be empty; it is made anew like a missing one.
    return parse_view(data) if data else None


def expose(hg_directory: Path, seq: Seq) -> Seq | None:
    """Put the view of `seq` in force and return the exposed seq, which is higher if a later one already was.

    None when there is no view of that seq; the apply side makes one.
    """
    current = read_exposed(hg_directory)
    if current is not None and current.seq >= seq:
        return current.seq
    if read_view(hg_directory, seq) is None:
        return None
    os.replace(_view_path(hg_directory, seq), os.path.join(hg_directory, EXPOSED))
    return seq


def prune(hg_directory: Path, below: Seq) -> int:
    """Remove the views under `below` except the one in force, and what they named; return how many went."""
    current = read_exposed(hg_directory)
    kept = current.seq if current is not None else 0
    old = [path for path in _files(hg_directory) if 0 < _seq_of(path.name) < below]
    gone = {_seq_of(path.name): path for path in old if _seq_of(path.name) != kept}
    for path in old:
        if _seq_of(path.name) in gone:
            path.unlink(missing_ok=True)
    return len(gone)


def view_seqs(hg_directory: Path) -> list[Seq]:
    """Return the seqs that can be put in force, lowest first."""
    names = [path.name for path in _files(hg_directory) if path.suffix == ".json"]
    return sorted(seq for seq in map(_seq_of, names) if seq)


def _files(hg_directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list((hg_directory / VIEWS).iterdir())
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
