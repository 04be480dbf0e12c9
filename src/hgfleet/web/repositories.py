"""The repositories that a worker has open, each at the view that is exposed when it is asked for.

Promises: an exposure, a new generation or a deletion is seen by the next request, for one small file is read
and one link followed each time; at most the given number stays open, the least recently used goes first.
Does not: know paths (web.catalogue) or answer requests.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgfleet.adapters import view_files
from hgfleet.adapters.bundle_offers import offers_stamp
from hgfleet.model.ids import RepoId
from hgfleet.model.view import View
from hgfleet.web.catalogue import Served
from hgfleet.web.options import SiteOptions
from hgfleet.web.repository_app import RepositoryApp, Shown


@dataclass(frozen=True, slots=True)
class Key:
    """What an answer depends on besides the request."""

    repository: RepoId
    path: str
    generation: str
    seq: int
    bundles_at: int  # when the offer of clone bundles was written, nanoseconds; 0: there is none


@dataclass(frozen=True, slots=True)
class Found:
    """A repository in the state that it is answered for."""

    key: Key
    app: RepositoryApp
    directory: Path  # of its generations


class Repositories:
    """The cache; any thread may ask."""

    def __init__(self, site: SiteOptions, ui: Any) -> None:
        self._site = site
        self._ui = ui
        self._lock = threading.Lock()
        self._found_by_id: OrderedDict[RepoId, Found] = OrderedDict()

    def open(self, served: Served) -> Found | None:
        """Return the repository at its exposed view, None when nothing of it is exposed here yet."""
        root = self.root(served.repository)
        view = view_files.read_exposed(root / ".hg") if root is not None else None
        if root is None or view is None:
            return None
        key = Key(served.repository, served.path, root.name, view.seq, offers_stamp(root.parent))
        with self._lock:
            found = self._found_by_id.get(served.repository)
            if found is None or found.key != key:
                found = Found(key, self._app(root, key, view, found), root.parent)
                self._found_by_id[served.repository] = found
            self._found_by_id.move_to_end(served.repository)
            while len(self._found_by_id) > self._site.cached_repositories:
                self._found_by_id.popitem(last=False)
        return found

    def root(self, repository: RepoId) -> Path | None:
        """Return the generation in use, None if this host has none."""
        link = self._site.repositories / repository / "current"
        try:
            return link.parent / link.readlink()
        except OSError:
            return None

    def _app(self, root: Path, key: Key, view: View, known: Found | None) -> RepositoryApp:
        is_same = known is not None and known.key.generation == root.name
        before = known.app if known is not None and is_same else None
        url = f"{self._site.base_url}/{key.path}"
        shown = Shown(root, key.path, url, view, has_bundles=key.bundles_at > 0)
        return RepositoryApp(self._ui, shown, before=before)
