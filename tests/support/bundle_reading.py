"""What a clone bundle brings: applied to an empty repository by the steps of a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mercurial import bundle2, exchange, localrepo, streamclone
from mercurial import ui as uimod
from mercurial.repo import factory


def apply_bundle(path: Path, target: Path) -> Any:
    """Apply the bundle to a new repository at `target` and return that, opened anew."""
    ui = uimod.ui()
    ui.quiet = True
    localrepo.createrepository(ui, str(target).encode())
    repo = factory.repository(ui, str(target).encode())
    with path.open("rb") as file, repo.lock(), repo.transaction(b"bundleurl") as tr:
        bundle = exchange.readbundle(ui, file, b"stream")
        if isinstance(bundle, streamclone.streamcloneapplier):
            bundle.apply(repo)
        else:
            bundle2.applybundle(repo, bundle, tr, b"clonebundles", b"bundle:")
    return factory.repository(ui, str(target).encode())
