"""Makes the repository that streaming bundles are made from: public, exposed changesets and nothing else.

Where the copy on this host has exactly those, its revlogs are copied as files, which costs next to nothing;
otherwise the changesets are pulled, which costs what a clone costs.

Promises: every changeset in it is public and exposed, all of these are in it, and no other changeset's text,
manifest or file revision is in its files. The copy on this host may change meanwhile and is not locked: its
revlogs only grow, and what was copied is checked afterwards.
Does not: carry markers, bookmarks or phases; all that is in it is public.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mercurial import error, exchange, localrepo
from mercurial import ui as uimod
from mercurial.repo import factory

from hgfleet.errors import InvariantError
from hgfleet.hgext.generations import REQUIREMENT

_REVLOG_FILES = (b".i", b".d")
_NODEMAP_FILES = (b".n", b".nd")  # a cache
_WITHOUT_MEANING_FOR_FILES = {REQUIREMENT, b"share-safe"}


def make_scratch_copy(public: Any, root: Path, stream_format: Mapping[str, bool | str]) -> Any:
    """Make the repository at `root`; `stream_format` are Mercurial's `format` settings of it."""
    scratch = _create(root, stream_format)
    if not _is_all_public(public) or _file_format(scratch) != _file_format(public):
        return _pulled(public, scratch)
    names = _revlog_files(public.unfiltered().store)
    if not all(name.endswith(_REVLOG_FILES) for name in names):  # a kind that we do not know
        return _pulled(public, scratch)
    _copy_revlogs(public, scratch, names)
    scratch = factory.repository(scratch.baseui, scratch.root)
    if not _has_only(scratch, public):  # something was written meanwhile
        shutil.rmtree(root)
        return _pulled(public, _create(root, stream_format))
    return _checked(public, scratch)


def head_nodes(repo: Any) -> list[bytes]:
    """Return the changesets without children."""
    return [repo.changelog.node(rev) for rev in repo.changelog.headrevs()]


def count_changesets(repo: Any) -> int:
    """Return how many changesets can be seen; a repository's length would count what is filtered, too."""
    return sum(1 for _ in repo)


def _create(root: Path, stream_format: Mapping[str, bool | str]) -> Any:
    ui = uimod.ui()
    for name, value in stream_format.items():
        ui.setconfig(
            b"format", name.encode(), value if isinstance(value, bool) else value.encode(), b"hgfleet"
        )
    ui.setconfig(b"ui", b"quiet", b"yes", b"hgfleet")
    localrepo.createrepository(ui, str(root).encode())
    return factory.repository(ui, str(root).encode())


def _checked(public: Any, scratch: Any) -> Any:
    if count_changesets(scratch) != count_changesets(public) or scratch.revs("not public()"):
        raise InvariantError("bundles.scratch", "the copy to be streamed has not exactly what is public")
    return scratch


# ---- by a pull


def _pulled(public: Any, scratch: Any) -> Any:
    # Mercurial asks this of a source on the same disk, as if its files were copied; a pull copies none.
    scratch.supported = scratch.supported | public.requirements
    exchange.pull(scratch, public.peer(), heads=head_nodes(public))
    scratch.invalidate(clearfilecache=True)
    return _checked(public, scratch)


# ---- by copying files


def _is_all_public(public: Any) -> bool:
    """Whether the copy has nothing but what is public and exposed, as it was when it was opened."""
    return len(public.unfiltered().changelog) == count_changesets(public)


def _file_format(repo: Any) -> set[bytes]:
    return set(repo.requirements) - _WITHOUT_MEANING_FOR_FILES


def _revlog_files(store: Any) -> list[bytes]:
    """Return the names of all files that history is in."""
    names = [file.unencoded_path for entry in store.walk() for file in entry.files(store.vfs)]
    return [name for name in names if not name.endswith(_NODEMAP_FILES)]


def _copy_revlogs(public: Any, scratch: Any, names: Iterable[bytes]) -> None:
    """Copy the files as they are now: they have at least what the changelog had when it was opened."""
    source, target = public.unfiltered().store, scratch.store
    for name in names:
        path = Path(os.fsdecode(scratch.svfs.join(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(public.svfs.join(name), path)
    if source.rawvfs.exists(b"fncache"):
        shutil.copyfile(source.rawvfs.join(b"fncache"), target.rawvfs.join(b"fncache"))


def _has_only(scratch: Any, public: Any) -> bool:
    """Whether every revision in every revlog belongs to a changeset that was meant, and all are whole."""
    try:
        return head_nodes(scratch) == head_nodes(public) and all(
            _belongs(revlog, len(scratch.changelog)) for revlog in _revlogs(scratch)
        )
    except (error.StorageError, error.RevlogError, OSError, LookupError):
        return False


def _belongs(revlog: Any, changesets: int) -> bool:
    return revlog.checksize() == (0, 0) and all(revlog.linkrev(rev) < changesets for rev in revlog)


def _revlogs(scratch: Any) -> Iterator[Any]:
    for entry in scratch.store.walk():
        yield entry.get_revlog_instance(scratch).get_revlog()
