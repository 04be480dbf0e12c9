"""Mercurial's side of hgfleet: every change of a hgfleet repository goes through the replication log.

Loaded as `hgfleet.hgext.fleet:required =` by the hgrc that hgfleet renders. Repositories with our requirement
cannot be opened without it, so a `hg` that does not load it aborts instead of writing past the log.
Configured by the section [hgfleet], see hgfleet.hgext.options.

Promises: where anything of this set-up failed, opening a repository raises.
Does not: do anything to repositories without our requirement.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from mercurial import error, exchange, extensions, obsolete, registrar, repair, scmutil, streamclone
from mercurial.repo import requirements as known_requirements

from hgfleet.errors import NOTHING_CHANGED, ConfigError, PoisonError
from hgfleet.hgext import (
    binding,
    branch_cache,
    collecting,
    copies,
    creation,
    exposed,
    file_list,
    markers,
    options,
    push_errors,
    pushlog_symbols,
    store_files,
    transactions,
)
from hgfleet.hgext.generations import REQUIREMENT

testedwith = b"7.2.4"

configtable: dict[bytes, Any] = {}
options.register(registrar.configitem(configtable))

_is_set_up: list[bool] = []


def uisetup(ui: Any) -> None:
    """Wrap what must not reach the disk by itself; the requirement becomes known last: failure is closed.

    May be called again, for a role that the process did not have before.
    """
    exposed.uisetup(ui)
    if _is_set_up:
        return
    extensions.wrapfunction(obsolete.obsstore, "add", markers.add)
    extensions.wrapfunction(repair, "deleteobsmarkers", _refuse_deletion)
    extensions.wrapfunction(repair, "strip", _refuse_strip)
    extensions.wrapfunction(exchange, "unbundle", push_errors.unbundle)
    extensions.wrapfunction(streamclone, "streamed_requirements", _hide_requirement)
    extensions.wrapfunction(scmutil, "registersummarycallback", _summarize)
    branch_cache.uisetup()
    collecting.uisetup()
    pushlog_symbols.register(ui)
    known_requirements.feature_setup_funcs.add(_support_requirement)
    _is_set_up.append(True)


def _support_requirement(_ui: Any, supported: set[bytes]) -> None:
    supported.add(REQUIREMENT)


def reposetup(ui: Any, repo: Any) -> None:
    """Bind a repository that was just opened to the log; raise Abort when the configuration is not fit."""
    if not repo.local() or REQUIREMENT not in getattr(repo, "requirements", ()):
        return
    try:
        chosen = options.read_options(ui)
    except ConfigError as exc:
        raise error.Abort(str(exc).encode(), hint=exc.hint.encode()) from exc
    if not _is_set_up:
        raise error.Abort(b"hgfleet was not set up completely in this process")
    if chosen.role == "web":
        exposed.reposetup(ui, repo)
        return
    unfiltered = repo.unfiltered()
    unfiltered.hgfleet = binding.make(chosen, Path(unfiltered.root.decode()))
    unfiltered.__class__ = transactions.repository_class(unfiltered.__class__)
    file_list.append_to(unfiltered)
    store_files.use(unfiltered)
    _configure(unfiltered)


def _configure(repo: Any) -> None:
    """Follow the repository's settings; a copy without a sound seq file can be read and refuses writes."""
    with contextlib.suppress(PoisonError):
        state = copies.state_of(repo)
        if state is not None:
            creation.configure(repo, state.settings)


def _summarize(orig: Any, repo: Any, *args: Any, **named: Any) -> None:
    """Count what a summary needs only where somebody reads it: nobody does while messages are applied."""
    bound = getattr(repo.unfiltered(), "hgfleet", None)
    if bound is None or not bound.is_applying:
        orig(repo, *args, **named)


def _hide_requirement(orig: Any, repo: Any) -> set[bytes]:
    """Leave our requirement out: a stream clone is a plain repository, which any client reads."""
    return set(orig(repo)) - {REQUIREMENT}


def _refuse_strip(orig: Any, ui: Any, repo: Any, *args: Any, **named: Any) -> Any:
    if getattr(repo, "hgfleet", None) is not None:
        raise error.Abort(b"strip is refused: copies cannot follow it; %s" % NOTHING_CHANGED.encode())
    return orig(ui, repo, *args, **named)


def _refuse_deletion(orig: Any, store: Any, indices: Any) -> Any:
    if getattr(store.repo, "hgfleet", None) is not None:
        raise error.Abort(b"obsmarkers cannot be deleted here; %s" % NOTHING_CHANGED.encode())
    return orig(store, indices)
