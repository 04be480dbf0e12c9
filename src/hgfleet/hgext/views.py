"""Makes the view of an applied seq: called by whatever has just applied, under the repository's lock.

Promises: the view shows exactly what the closed transaction left; making it twice, or after a crash in
between, gives the same view. It costs two hard links: Mercurial replaces both files by rename, never writing
into them.
Does not: run inside a transaction (an abandoned journal is recovered first) or decide what is exposed.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from mercurial.bookmarks import bookmarksinstore

from hgfleet.adapters import view_files
from hgfleet.errors import InvariantError
from hgfleet.hgext import pushlog
from hgfleet.model.ids import Seq
from hgfleet.model.settings import RepoSettings
from hgfleet.model.state import Fingerprint
from hgfleet.model.view import View

# Where Mercurial keeps them, relative to .hg, unless the format says otherwise (`bookmarks-in-store`).
_PHASEROOTS = "store/phaseroots"
_BOOKMARKS = "bookmarks"
_BOOKMARKS_IN_STORE = "store/bookmarks"


def make_view(repo: Any, seq: Seq, fingerprint: Fingerprint, settings: RepoSettings) -> View:
    """Ensure that the state the repository is in, applied up to `seq`, can be exposed; return its view.

    The caller holds the repository's lock and has no transaction open; InvariantError `view.in-transaction`.
    """
    hg_directory = Path(os.fsdecode(repo.path))
    present = view_files.read_view(hg_directory, seq)
    if present is not None:
        return present
    if repo.svfs.exists(b"journal"):
        raise InvariantError("view.in-transaction", "a view may not be made inside a transaction", seq=seq)
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(hg_directory, view_files.VIEWS))
    bookmarks = _BOOKMARKS_IN_STORE if bookmarksinstore(repo) else _BOOKMARKS
    view = View(
        seq=seq,
        changelog_length=fingerprint.changelog_length,
        obsstore_bytes=fingerprint.obsstore_bytes,
        pushlog_bytes=fingerprint.pushes * pushlog.RECORD_BYTES,
        phaseroots=_keep(hg_directory, _PHASEROOTS, f"{seq}.phaseroots"),
        bookmarks=_keep(hg_directory, bookmarks, f"{seq}.bookmarks"),
        settings=settings,
    )
    view_files.write_view(hg_directory, view)
    return view


def _keep(hg_directory: Path, source: str, name: str) -> str:
    """Link a file beside the view and return the link's name, "" if there is no such file."""
    path, kept = os.path.join(hg_directory, source), os.path.join(hg_directory, view_files.VIEWS, name)
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(path, kept)
        except FileExistsError:  # left by a crash before the view itself was written
            os.unlink(kept)
            os.link(path, kept)
        return name
    return ""  # what a crash may have left under the name is pruned with the seq
