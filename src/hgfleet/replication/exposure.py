"""Puts views in force: the step by which readers of a mirror see what was applied.

Promises: what is exposed never falls and never exceeds what was asked for; where a crash left no view of the
very seq, the highest one below it is taken.
Does not: choose the seq (model.membership) or make views (hgext.views).
"""

from __future__ import annotations

from pathlib import Path

from hgfleet.adapters import view_files
from hgfleet.model.ids import Seq


def hg_directory(directory: Path) -> Path:
    """Return `.hg` of the generation in use of `repos/<RepoId>`."""
    return directory / "current" / ".hg"


def exposed_seq(directory: Path) -> Seq:
    """Return what readers of a copy see; 0 before the first exposure."""
    view = view_files.read_exposed(hg_directory(directory))
    return view.seq if view is not None else Seq(0)


def expose_up_to(directory: Path, wanted: Seq) -> Seq:
    """Expose the highest view up to `wanted` and return the seq that is exposed then."""
    where = hg_directory(directory)
    exposed = view_files.expose(where, wanted)
    if exposed is None:
        fitting = [seq for seq in view_files.view_seqs(where) if seq < wanted]
        exposed = view_files.expose(where, fitting[-1]) if fitting else None
    return exposed_seq(directory) if exposed is None else exposed


def prune_views(directory: Path, below: Seq) -> int:
    """Remove views that will not be exposed any more; return how many went."""
    return view_files.prune(hg_directory(directory), below)
