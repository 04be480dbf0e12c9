"""One repository at one exposed view, as a WSGI application: Mercurial's hgweb over repository objects that
never change.

Promises: every answer is of this view; a repository object serves one thread at a time and is reused without
looking at the disk, but for one file whose replacement would invalidate what it has read.
Does not: find repositories, cache answers or notice a later view (web.repositories).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mercurial import error
from mercurial.hgweb import hgweb_mod_inner, webutil
from mercurial.hgweb import request as hgweb_request
from mercurial.repo import factory

from hgfleet.errors import RejectedError
from hgfleet.model.view import View
from hgfleet.web.answers import StartResponse
from hgfleet.web.arguments import bound_request


class OutdatedError(Exception):
    """A later view is exposed already: look again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What an application shows."""

    root: Path
    path: str
    url: str
    view: View
    has_bundles: bool = False  # whether clone bundles are offered


class RepositoryApp(hgweb_mod_inner.hgweb):
    """hgweb's request handling with a pool of our own under it."""

    def __init__(self, ui: Any, shown: Shown, *, before: RepositoryApp | None = None) -> None:
        """Prepare to show a view; `before` shows an earlier one of the same generation."""
        # hgweb's own constructor would open the repository and stat it for every request.
        self.view = shown.view
        self.reponame = shown.path.encode()
        self.websubtable: Any = []
        self.mtime = shown.view.seq
        self._ui = ui
        self._root = os.fsencode(shown.root)
        self._url = shown.url.encode()
        self._has_bundles = shown.has_bundles
        self._idle: list[_Opened] = []
        # One that was never opened has nothing to give; a chain of such would keep all views in memory.
        is_empty = before is not None and not before._idle
        self._before: RepositoryApp | None = before._before if before is not None and is_empty else before

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer one request; raise RejectedError for arguments that hgweb must not see."""
        request = hgweb_request.parserequestfromenv(environ, altbaseurl=self._url)
        bound_request(request)
        response = hgweb_request.wsgiresponse(request, start)
        answer: Iterable[bytes] = self.run_wsgi(request, response)
        return answer

    def forget(self) -> None:
        """Open the repository anew for the next request: what is cached did not fit the files."""
        self._idle.clear()

    @contextlib.contextmanager
    def _obtainrepo(self) -> Iterator[Any]:
        opened = self._take()
        try:
            yield opened.repo
        except Exception:
            raise  # an object that has failed is not used again
        else:
            self._idle.append(opened)

    def _take(self) -> _Opened:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was first
                opened = self._idle.pop()
                if opened.is_valid():
                    return opened
        return self._open()

    def _open(self) -> _Opened:
        repo = factory.repository(self._ui.copy(), self._root)
        if repo.hgfleet_view.seq != self.view.seq:
            raise OutdatedError
        repo.unfiltered().hgfleet_has_bundles = self._has_bundles
        for ui in (repo.ui, repo.baseui):
            ui.setconfig(b"ui", b"forcecwd", repo.root, b"hgfleet")  # file patterns are relative to it
        repo = hgweb_mod_inner.getwebview(repo)
        self.websubtable = webutil.getwebsubs(repo)
        self._inherit(repo)
        return _Opened(repo)

    def _inherit(self, repo: Any) -> None:
        """Take over the heads of branches from the view before, which are cheap to go on from."""
        before, self._before = self._before, None
        if before is not None and before._idle:
            with contextlib.suppress(IndexError):  # another thread was first
                _copy_branch_heads(before._idle.pop().repo, repo)


class _Opened:
    """A repository object and what must not be replaced under it."""

    def __init__(self, repo: Any) -> None:
        self.repo = repo
        self._manifest = repo.sjoin(b"00manifest.i")
        self._inode = self._current_inode()

    def is_valid(self) -> bool:
        """Whether the manifest is the file it was: once it outgrows its inline form, it is replaced."""
        return self._inode == self._current_inode()

    def _current_inode(self) -> int:
        try:
            return os.stat(self._manifest).st_ino
        except FileNotFoundError:
            return 0


def _copy_branch_heads(source: Any, target: Any) -> None:
    """Copy Mercurial's branch caches; it compares them with the repository before it believes them.

    On disk they may be ahead of a mirror's exposed state, or not there, and making them anew costs 3 µs per
    changeset of the repository.
    """
    caches = target.unfiltered()._branchcaches._per_filter
    for name, cache in source.unfiltered()._branchcaches._per_filter.items():
        caches[name] = type(cache)(
            target.filtered(name) if name is not None else target.unfiltered(),
            cache._entries,
            cache.tipnode,
            cache.tiprev,
            cache.key_hashes,
            cache._closednodes,
            cache._verify_node,
        )


# What hgweb lets escape when an argument is not what it expects; it checks few of them itself.
ARGUMENT_FAULTS = (RejectedError, LookupError, ValueError, TypeError, OverflowError, error.ParseError)
