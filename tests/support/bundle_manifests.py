"""Clone bundle manifests as Mercurial itself reads them."""

from __future__ import annotations

from mercurial import bundlecaches
from mercurial import ui as uimod


class _Reader:
    """As much of a repository as reading a manifest needs."""

    def __init__(self) -> None:
        self.ui = uimod.ui()


def read_manifest(text: bytes) -> list[dict[bytes, bytes]]:
    """Return each line's URL and attributes."""
    return list(bundlecaches.parseclonebundlesmanifest(_Reader(), text))
