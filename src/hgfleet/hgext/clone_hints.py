"""What is told to clients about clone bundles: that there are some, and how to use them.

Active for repositories that were opened with bundles to offer (`hgfleet_has_bundles`: whether there are, or
what tells it when it is asked).

Promises: the capability is advertised only where a manifest will be given; a client that could have used
bundles and did not is told how, once, in a bundle2 part that it may ignore.
Does not: read manifests or choose entries.
"""

from __future__ import annotations

from typing import Any

from mercurial import exchange, extensions, wireprotov1server

ADVERTISE = b"advertise-clone-bundles"
_STEP = b"hgfleet-clone-hint"
_HINT = (
    b"this server has pre-generated bundles, from which cloning is faster; your client did not use them\n"
    b"(ui.clonebundles=true uses them, --config ui.clonebundles=false passes them by)\n"
)


def uisetup() -> None:
    """Prepare the process; may be called again."""
    if _STEP in exchange.getbundle2partsmapping:
        return
    exchange.getbundle2partsgenerator(_STEP, idx=0)(add_hint)
    extensions.wrapfunction(wireprotov1server, "_capabilities", _capabilities)


def _capabilities(orig: Any, repo: Any, proto: Any) -> list[bytes]:
    listed: list[bytes] = orig(repo, proto)
    return [*listed, b"clonebundles"] if _has_bundles(repo) else listed


def add_hint(
    bundler: Any, repo: Any, _source: bytes, *, cbattempted: bool | None = None, **_arguments: Any
) -> None:
    """Add the hint to a full clone whose client says that it did not try bundles; None: it knows none."""
    if cbattempted is not False or not _has_bundles(repo):
        return
    if repo.ui.configbool(b"hgfleet", ADVERTISE):
        bundler.newpart(b"output", data=_HINT, mandatory=False)


def _has_bundles(repo: Any) -> bool:
    known = getattr(repo.unfiltered(), "hgfleet_has_bundles", False)
    return bool(known() if callable(known) else known)
