"""Everything that a session needs imported, read and warmed up, once, before the first session.

Promises: the configuration is exactly the hgrc that HGRCPATH names and our extension is in force, or
ConfigError: a Mercurial without it would accept pushes that nobody records. What one push and one pull
need has been imported, so a forked child imports nothing.
Does not: open a repository of the fleet.
"""

from __future__ import annotations

import gc
import io
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from mercurial import (
    context,
    encoding,
    exchange,
    extensions,
    initialization,
    localrepo,
    wireprotoserver,
)
from mercurial import (
    ui as ui_module,
)

from hgfleet.errors import ConfigError
from hgfleet.hgext import session_bundles
from hgfleet.hgext.session_rehearsal import RUNS, Rehearsal

EXTENSION_MODULE = "hgfleet.hgext.fleet"
_WIRE_COMMANDS = (
    b"hello\n"
    b"between\npairs 81\n" + b"0" * 40 + b"-" + b"0" * 40 + b"protocaps\ncaps 15\npartial-pull ab"
    b"batch\n* 0\ncmds 19\nheads ;known nodes="
    b"listkeys\nnamespace 6\nphases"
    b"listkeys\nnamespace 9\nbookmarks"
    b"getbundle\n* 1\nbundlecaps 78\n"
    b"HG20,bundle2=HG20%0Achangegroup%3D01%2C02%0Aphases%3Dheads%0Abookmarks%0Alistkeys"
    b"\n"
)


def preload_mercurial() -> Any:
    """Import, load and warm up Mercurial; return the ui that sessions copy."""
    initialization.init()
    ui = ui_module.ui.load()
    extensions.loadall(ui)
    extensions.populateui(ui)
    _check_extension()
    session_bundles.uisetup()
    with tempfile.TemporaryDirectory(prefix="hgfleet-warm-up-") as directory:
        _warm_up(ui.copy(), os.fsencode(directory))
    gc.collect()
    gc.freeze()
    return ui


def make_rehearsal(ui: Any, directory: Path) -> Rehearsal | None:
    """Return what forked children rehearse, done often enough here; None where the disk refuses it."""
    with suppress(OSError):
        source = localrepo.instance(ui.copy(), os.fsencode(directory / "source"), True)
        rehearsal = Rehearsal(ui, directory / "target", source)
        for _ in range(RUNS):
            rehearsal.run()
        gc.collect()
        gc.freeze()
        return rehearsal
    return None


def _check_extension() -> None:
    """Mercurial disables an extension that fails to set up and carries on: look whether it is there."""
    loaded = {module.__name__ for _, module in extensions.extensions()}
    if EXTENSION_MODULE not in loaded:
        raise ConfigError(
            "sessions.no-extension",
            "Mercurial runs without the extension that records pushes",
            hint="the hgrc must load it, and it must set itself up; see the lines above",
            extension=EXTENSION_MODULE,
        )


def _warm_up(ui: Any, directory: bytes) -> None:
    """Push a changeset between two throw-away repositories and read it over the wire protocol."""
    source = localrepo.instance(ui, os.path.join(directory, b"source"), True)
    target = localrepo.instance(ui, os.path.join(directory, b"target"), True)
    ui.pushbuffer(error=True)
    source.ui.pushbuffer(error=True)
    target.ui.pushbuffer(error=True)
    _commit(source)
    exchange.push(source, target.peer(), newbranch=True)
    _answer_nobody(ui, target)


def _answer_nobody(ui: Any, repo: Any) -> None:
    wireprotoserver._runsshserver(ui, repo, io.BytesIO(_WIRE_COMMANDS), io.BytesIO(), threading.Event())


def _commit(repo: Any) -> None:
    def content(_repo: Any, change: Any, path: bytes) -> Any:
        return context.memfilectx(repo, change, path, b"warm\n")

    parents = (repo[b"null"].node(), None)
    change = context.memctx(repo, parents, encoding.tolocal(b"warm up"), [b"file"], content, user=b"hgfleet")
    with repo.wlock(), repo.lock():
        repo.commitctx(change)
