"""In web workers, a repository is what its mirror exposes: read at the view in force, never written.

Active where `hgfleet.role` is `web`; in every other process the same functions do nothing.

Promises: pages, JSON, pushlog and wire protocol alike answer as a copy replayed to the exposed seq would. One
repository object shows one view for its whole life. Locks are refused, and every wire command that writes is
answered, before its data is looked at, with where to push instead. What clients send is a symbol, a number or
a keyword, never a revset.
Does not: notice a later exposure; web.dispatcher opens the repository again then.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from mercurial import bookmarks, error, extensions, revsetlang, scmutil, wireprotov1server
from mercurial.hgweb import common as hgweb_common
from mercurial.hgweb import webcommands

from hgfleet.adapters import view_files
from hgfleet.hgext import clone_hints, overlay, pushlog_pages
from hgfleet.model.view import View


def is_active(ui: Any) -> bool:
    """Say whether this process shows repositories as they are exposed."""
    return bool(ui.config(b"hgfleet", b"role") == b"web")


def uisetup(ui: Any) -> None:
    """Prepare the process: prefixes of revlogs, refusal of writes, no revsets from clients."""
    if not is_active(ui) or _refuse_writes in hgweb_common.permhooks:
        return
    overlay.wrap_revlogs()
    clone_hints.uisetup()
    hgweb_common.permhooks.insert(0, _refuse_writes)
    webcommands.revsetlang = _KeywordsOnly()
    extensions.wrapfunction(scmutil, "revsymbol", _revsymbol)
    extensions.wrapfunction(wireprotov1server, "options", _options)
    pushlog_pages.register()


def _revsymbol(orig: Any, repo: Any, symbol: bytes) -> Any:
    """Look up a changeset only: hgweb would show a working directory's files, or fail for lack of one."""
    try:
        ctx = orig(repo, symbol)
    except error.WdirUnsupported:
        ctx = None
    if ctx is None or ctx.rev() is None:
        raise error.RepoLookupError(b"unknown revision '%s'" % symbol)
    return ctx


def _options(_orig: Any, _command: bytes, keys: Any, others: dict[bytes, Any]) -> dict[bytes, Any]:
    """Take the arguments that the command knows, without a warning on standard error for each other one."""
    return {key: others[key] for key in keys if key in others}


class _KeywordsOnly:
    """Stands for mercurial.revsetlang in hgweb's search, where a query that can't be parsed is keywords."""

    @staticmethod
    def parse(*_args: Any, **_options: Any) -> Any:
        raise error.ParseError(b"clients search by keyword")

    tokenize = staticmethod(revsetlang.tokenize)


def _refuse_writes(web: Any, _request: Any, operation: bytes | None) -> None:
    if operation in (None, b"pull"):
        return
    ssh_url = web.repo.ui.config(b"hgfleet", b"ssh-url")
    where = b"push to %s/%s" % (ssh_url.rstrip(b"/"), web.reponame) if ssh_url else b"push over SSH"
    raise hgweb_common.ErrorResponse(403, b"this mirror is read-only: %s" % where)


def reposetup(ui: Any, repo: Any) -> None:
    """Turn a repository that was just opened into its exposed state; RepoError: nothing is exposed yet."""
    if not is_active(ui) or not repo.local():
        return
    loaded = view_files.load_exposed(Path(os.fsdecode(repo.path)))
    if loaded is None:
        raise error.RepoError(b"nothing of this repository is exposed yet")
    view, phaseroots, bookmark_lines = loaded
    repo = repo.unfiltered()
    _install(repo, view, phaseroots, bookmark_lines)
    _configure(repo, view)
    repo.__class__ = _read_only(repo.__class__)
    repo.hgfleet_view = view


def _install(repo: Any, view: View, phaseroots: bytes | None, bookmark_lines: bytes | None) -> None:
    repo.svfs.options[overlay.LENGTH] = view.changelog_length
    in_store: dict[bytes, overlay.FileContent] = {
        b"phaseroots": lambda: phaseroots,
        b"obsstore": overlay.read_prefix(repo.sjoin(b"obsstore"), view.obsstore_bytes),
    }
    outside: dict[bytes, overlay.FileContent] = {}
    (in_store if bookmarks.bookmarksinstore(repo) else outside)[b"bookmarks"] = lambda: bookmark_lines
    repo.svfs = overlay.OverlaidVfs(repo.svfs, in_store)
    repo.store.vfs = repo.store.opener = repo.svfs
    repo.vfs = overlay.OverlaidVfs(repo.vfs, outside)
    repo.cachevfs = overlay.OverlaidVfs(repo.cachevfs, {})
    repo.wcachevfs = overlay.OverlaidVfs(repo.wcachevfs, {})


def _configure(repo: Any, view: View) -> None:
    """Answer under the settings in force at the exposed seq."""
    publish = b"yes" if view.settings.is_publishing else b"no"
    for ui in (repo.ui, repo.baseui):
        ui.setconfig(b"phases", b"publish", publish, b"hgfleet")
        ui.setconfig(b"web", b"description", view.settings.description.encode(), b"hgfleet")
        ui.setconfig(b"server", b"uncompressed", b"no", b"hgfleet")


_class_by_base: dict[type, type] = {}


def _read_only(base: type) -> type:
    if base not in _class_by_base:
        _class_by_base[base] = _make_read_only(base)
    return _class_by_base[base]


def _make_read_only(base: Any) -> type:
    class ExposedRepository(base):
        """Refuses both locks at once, so that a cache that would be written is dropped and a write aborts."""

        hgfleet_view: View

        def lock(self, wait: bool = True, steal_from: Any = None) -> Any:
            raise self._refusal(b"lock")

        def wlock(self, wait: bool = True, steal_from: Any = None) -> Any:
            raise self._refusal(b"wlock")

        def transaction(self, desc: bytes, report: Any = None) -> Any:
            raise self._refusal(b"journal")

        def _refusal(self, name: bytes) -> error.LockUnavailable:
            reason = b"a mirror is read-only"
            return error.LockUnavailable(errno.EROFS, reason, self.vfs.join(name), self.root)

    return ExposedRepository
