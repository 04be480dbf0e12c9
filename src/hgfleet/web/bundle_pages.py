"""What clone bundles there are: a list for programs, and a page for people that tells how to use them.

Promises: exactly what this mirror offers to a client that is nowhere in particular; a repository without
bundles costs one look at its directory; whatever comes from repositories and entries is escaped.
Does not: serve the bundles, or choose for a client's place (web.clone_bundles).
"""

from __future__ import annotations

import html
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hgfleet.adapters import view_files
from hgfleet.adapters.bundle_offers import offers_stamp, read_offer
from hgfleet.model.bundle_manifest import ManifestEntry
from hgfleet.model.ids import RepoId, RepoPath, Seq
from hgfleet.web.answers import Answer, json_answer, page
from hgfleet.web.catalogue import Catalogue
from hgfleet.web.options import SiteOptions
from hgfleet.web.repositories import Repositories

_SIZE_STEP = 1024
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
Entries = tuple[ManifestEntry, ...]

_HOW_TO = """
<h2>How to use them</h2>
<p>Mercurial 3.7 and later uses them by itself. It says <samp>applying clone bundle from …</samp>, then
pulls what is newer.</p>
<table>
<thead><tr><th scope="col">Client</th><th scope="col">What it takes</th></tr></thead>
<tbody>
<tr><th scope="row">before 3.6</th><td>no bundles: it clones from this server</td></tr>
<tr><th scope="row">3.6</th><td>bundles, with <code>[experimental] clonebundles = true</code>; preferences
are named <code>[experimental] clonebundleprefers</code></td></tr>
<tr><th scope="row">3.7 – 4.0</th><td>gzip and packed1</td></tr>
<tr><th scope="row">4.1 and later</th><td>zstd, too, if it was built with it</td></tr>
<tr><th scope="row">5.0 and later</th><td>stream-v2, too</td></tr>
</tbody>
</table>
<p>A client takes the first bundle of the list that it can read, unless its configuration prefers another:</p>
<pre><code>[ui]
clonebundleprefers = {preference}</code></pre>
<p>For streaming, which is fastest on a fast network: <code>COMPRESSION=none</code>, or
<code>VERSION=packed1</code> for that type alone. For few bytes: <code>COMPRESSION=zstd</code> or
<code>COMPRESSION=gzip</code>.</p>
<p>To clone without them: <code>hg clone --config ui.clonebundles=false {url}</code>. When a bundle cannot be
fetched, the clone ends; <code>--config ui.clonebundlefallback=true</code> makes it go on from
this server.</p>
"""
_NONE = "<p>No repository has clone bundles at the moment.</p>"


class BundlePages:
    """Renders both; any thread may ask."""

    def __init__(self, site: SiteOptions, catalogue: Catalogue, repositories: Repositories) -> None:
        self._site = site
        self._catalogue = catalogue
        self._repositories = repositories
        self._lock = threading.Lock()
        self._known: dict[RepoId, tuple[tuple[int, Seq], Entries]] = {}

    def answer(self, name: str) -> Answer:
        """Answer `bundles.json`, or the page under any other name."""
        offers = self._offers()
        if name == "bundles.json":
            return json_answer(200, {path: _by_type(entries) for path, entries in offers.items()})
        return page(200, f"Clone bundles – {self._site.site_name}", self._content(offers))

    def _offers(self) -> dict[RepoPath, Entries]:
        """Return what is offered, by path; repositories without an offer are left out."""
        served = [row for row in self._catalogue.list() if row.parked_reason is None]
        offers = {row.path: self._offer(row.repository) for row in served}
        with self._lock:
            for repository in self._known.keys() - {row.repository for row in served}:
                del self._known[repository]
        return {path: entries for path, entries in offers.items() if entries}

    def _offer(self, repository: RepoId) -> Entries:
        directory = self._site.repositories / repository
        stamp = offers_stamp(directory)
        exposed = self._exposed(repository) if stamp else None
        if exposed is None:
            return ()
        with self._lock:
            known = self._known.get(repository)
        if known is not None and known[0] == (stamp, exposed):
            return known[1]
        entries = read_offer(directory, exposed)
        with self._lock:
            self._known[repository] = (stamp, exposed), entries
        return entries

    def _exposed(self, repository: RepoId) -> Seq | None:
        root: Path | None = self._repositories.root(repository)
        view = view_files.read_exposed(root / ".hg") if root is not None else None
        return view.seq if view is not None else None

    def _content(self, offers: Mapping[RepoPath, Entries]) -> str:
        example = next(iter(offers), "REPOSITORY")
        how_to = _HOW_TO.format(
            preference=html.escape(_preference(offers.values())),
            url=html.escape(f"{self._site.base_url}/{example}"),
        )
        return (
            "<h1>Clone bundles</h1>\n"
            "<p>Bundles of the repositories below were made ahead. A clone that uses one is faster, and this "
            'server has less to do. The same <a href="/-/bundles.json">for programs</a>.</p>\n'
            f"{_table(offers) if offers else _NONE}\n{how_to}{_attributes(offers.values())}"
        )


def _by_type(entries: Iterable[ManifestEntry]) -> dict[str, Any]:
    """Describe each type by its first entry, and name all places where it lies."""
    types: dict[str, Any] = {}
    for entry in entries:
        about = {
            "url": entry.url,
            "size_bytes": entry.size_bytes,
            "sha256": entry.sha256,
            "spec": entry.spec,
            "places": [],
        }
        described = types.setdefault(entry.kind.value, about)
        described["places"].append({"url": entry.url, "attributes": dict(entry.attributes)})
    return types


def _table(offers: Mapping[RepoPath, Entries]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row"><a href="/{html.escape(path)}/">{html.escape(path)}</a></th>'
        f"<td>{'<br>'.join(_link(entry) for entry in entries)}</td></tr>"
        for path, entries in offers.items()
    )
    columns = '<th scope="col">Repository</th><th scope="col">Bundles, in the order of the list</th>'
    return f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _link(entry: ManifestEntry) -> str:
    attributes = " ".join(f"{name}={value}" for name, value in sorted(entry.attributes.items()))
    about = f"{format_size(entry.size_bytes)} {attributes}".strip()
    return f'<a href="{html.escape(entry.url)}">{html.escape(entry.kind.value)}</a> {html.escape(about)}'


def format_size(size_bytes: int) -> str:
    """Return a size as people read it."""
    size, unit = float(size_bytes), 0
    while size >= _SIZE_STEP and unit < len(_UNITS) - 1:
        size, unit = size / _SIZE_STEP, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} {_UNITS[0]}"


def _own_attributes(offers: Iterable[Entries]) -> list[str]:
    """Return the attributes that a preference can name here, `name=value`."""
    pairs = {
        f"{name}={value}"
        for entries in offers
        for entry in entries
        for name, value in entry.attributes.items()
        if not name.isupper()
    }
    return sorted(pairs)


def _preference(offers: Iterable[Entries]) -> str:
    own = _own_attributes(offers)
    return ", ".join([*own[:1], "COMPRESSION=zstd"])


def _attributes(offers: Iterable[Entries]) -> str:
    own = _own_attributes(offers)
    if not own:
        return ""
    items = "".join(f"<li><code>{html.escape(pair)}</code></li>" for pair in own)
    return f"<h2>Where they lie</h2>\n<p>Preferences can name these:</p>\n<ul>{items}</ul>\n"
