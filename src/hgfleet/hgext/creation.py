"""Creates a repository as its log says, and keeps an open one to its settings.

Promises: a new repository has the default format of this Mercurial release, the same on every host whatever
its configuration files say, and the requirement that makes a stock `hg` refuse it.
Does not: decide where it lies (hgext.generations).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mercurial import localrepo
from mercurial import ui as uimod

from hgfleet.hgext import seqfile
from hgfleet.hgext.generations import REQUIREMENT
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.settings import RepoSettings


def create_repository(root: Path, state: SeqState) -> None:
    """Create an empty repository at `root` that is the result of `state`."""
    ui = uimod.ui()  # no configuration file is read: formats must not differ between hosts
    localrepo.createrepository(ui, str(root).encode())
    store = root / ".hg" / "store"
    with (store / "requires").open("ab") as file:
        file.write(REQUIREMENT + b"\n")
    (store / seqfile.NAME).write_bytes(seqfile.format_state(state))


def configure(repo: Any, settings: RepoSettings) -> None:
    """Let an open repository follow its settings."""
    publish = b"yes" if settings.is_publishing else b"no"
    for ui in (repo.ui, repo.baseui):
        ui.setconfig(b"phases", b"publish", publish, b"hgfleet")
