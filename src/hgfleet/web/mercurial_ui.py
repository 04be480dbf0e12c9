"""The Mercurial of a web worker: our extension in the role `web`, and nothing of the machine's set-up.

Promises: no configuration file or environment variable has a say; every module that a request may need is
imported before the first one, as imports in many threads at once are slow or worse.
Does not: open repositories.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from mercurial import encoding, extensions, hook, initialization, pycompat, templatefilters, util
from mercurial import ui as uimod
from mercurial.hgweb import webcommands

from hgfleet.web.answers import HGWEB_CSP
from hgfleet.web.arguments import parse_lists, parse_pairs
from hgfleet.web.options import SiteOptions

_EXTENSION = b"hgfleet.hgext.fleet"
_STATIC_URL = b"/-/static/"
_USED_LATER = (
    "mercurial.archival",
    "mercurial.bundle2",
    "mercurial.exchange",
    "mercurial.graphmod",
    "mercurial.hgweb.hgweb_mod_inner",
    "mercurial.hgweb.webcommands",
    "mercurial.obsolete",
    "mercurial.repo.factory",
    "mercurial.streamclone",
    "mercurial.templatefuncs",
    "mercurial.utils.compression",
    "mercurial.wireprotov1server",
)


def load_ui(site: SiteOptions) -> Any:
    """Return a ui with our extension loaded, and seen to be loaded; call it once per process."""
    os.environ |= {"HGPLAIN": "1", "HGRCPATH": "", "HGRCSKIPREPO": "1", "HGENCODING": "UTF-8"}
    initialization.init()
    encoding.encoding = b"UTF-8"
    encoding.encodingmode = b"replace"
    for name in _USED_LATER:
        importlib.import_module(name)
    ui = uimod.ui()
    for section, key, value in _items(site):
        ui.setconfig(section, key, value, b"hgfleet")
    extensions.loadall(ui, [_EXTENSION])
    extensions.populateui(ui)
    # Mercurial sets an extension up once per process, whoever loaded it first; this role must not go without.
    extensions.find(_EXTENSION).uisetup(ui)
    extensions.wrapfunction(webcommands, "_getdoc", _first_line)
    hook.redirect(True)
    util.urlreq.parseqsl, util.urlreq.parseqs = parse_pairs, parse_lists
    # "5 minutes ago" would differ between workers, mirrors and answers kept in memory, at one state.
    templatefilters.filters[b"age"] = templatefilters.isodate
    ui.ferr = open(os.devnull, "wb")  # noqa: SIM115  (what clients provoke is in the log line of their request)
    return ui


def _first_line(_original: Any, entry: Any) -> bytes:
    """Return what a command does, in one line; Mercurial 7.2 fails here, as it takes docstrings for bytes."""
    lines = pycompat.sysbytes(entry[0].__doc__ or "").splitlines()
    return lines[0] if lines else b"(no help text available)"


def _items(site: SiteOptions) -> list[tuple[bytes, bytes, bytes]]:
    return [
        (b"extensions", _EXTENSION, b""),
        (b"extensions", _EXTENSION + b":required", b"yes"),
        (b"hgfleet", b"role", b"web"),
        (b"hgfleet", b"host", site.host.encode()),
        (b"hgfleet", b"ssh-url", site.ssh_url.encode()),
        (b"hgfleet", b"advertise-clone-bundles", b"yes" if site.advertise_bundles else b"no"),
        (b"experimental", b"evolution", b"all"),
        # Arguments in a body are understood but not asked for: a client writes head and body apart, and the
        # second write waits 40 ms for the acknowledgement of the first.
        (b"experimental", b"httppostargs", b"no"),
        (b"server", b"uncompressed", b"no"),
        (b"server", b"bundle1", b"no"),
        (b"progress", b"disable", b"yes"),
        (b"ui", b"interactive", b"no"),
        (b"ui", b"nontty", b"yes"),
        (b"ui", b"report_untrusted", b"no"),
        (b"ui", b"signal-safe-lock", b"no"),
        (b"worker", b"enabled", b"no"),
        (b"web", b"allow-archive", b"zip gz bz2"),
        (b"web", b"cache", b"no"),  # entity tags and answers are cached per exposed seq, by us
        (b"web", b"csp", HGWEB_CSP.encode()),
        (b"web", b"encoding", b"UTF-8"),
        (b"web", b"staticurl", _STATIC_URL),
        (b"web", b"style", b"gitweb"),
        (b"web", b"logourl", b"/"),
    ]
