"""Where a repository lies on a host: generations side by side, and the link to the one in use.

    repos/<RepoId>/current -> g1
    repos/<RepoId>/g1/.hg/…

A generation is built under another name and renamed when it is whole; the link is switched by rename.

Promises: `current` never names a repository that is not complete; whoever opened a generation keeps it.
Does not: fill a generation (hgext.apply) or decide when a new one is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hgfleet.hgext import seqfile
from hgfleet.hgext.seqfile import SeqState

LINK = "current"
DELETED = "deleted.json"
REQUIREMENT = b"hgfleet-log"


def repository_directory(path: str | Path) -> Path:
    """Return `repos/<RepoId>` for it, its `current` link or one of its generations."""
    path = Path(path)
    is_inside = path.name == LINK or (path.name[:1] == "g" and path.name[1:].isdigit())
    return path.parent if is_inside else path


def current_root(directory: str | Path) -> Path | None:
    """Return the generation in use, None when there is none."""
    directory = repository_directory(directory)
    try:
        return directory / (directory / LINK).readlink()
    except FileNotFoundError:
        return None


def inspect(directory: str | Path) -> SeqState | None:
    """Return what the copy is the result of, None when there is no copy here; cheap."""
    root = current_root(directory)
    return deleted_state(directory) if root is None else seqfile.read(root)


def deleted_state(directory: str | Path) -> SeqState | None:
    """Return the last state of a copy that a `deleted` message removed."""
    try:
        return seqfile.parse((repository_directory(directory) / DELETED).read_bytes())
    except FileNotFoundError:
        return None


def create_next(directory: str | Path, build: Callable[[Path], None]) -> Path:
    """Build a generation with `build(root)` and make it the one in use; return its root.

    Of several processes that create the first one at once, one wins and all return its root.
    """
    directory = repository_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    before = current_root(directory)
    number = 1 if before is None else int(before.name[1:]) + 1
    building = directory / f"building-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    build(building)
    root = directory / f"g{number}"
    try:
        building.rename(root)
    except OSError:  # another process was first, or died before the link was made
        shutil.rmtree(building)
        if not (root / ".hg").is_dir():
            raise
    _switch(directory, root.name)
    return root


def remove(directory: str | Path, last: SeqState) -> None:
    """Take the copy away for good, remembering what it was; safe to repeat."""
    directory = repository_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f"{DELETED}.{os.getpid()}"
    temporary.write_bytes(seqfile.format_state(last))
    temporary.rename(directory / DELETED)
    (directory / LINK).unlink(missing_ok=True)
    for generation in directory.glob("g*"):
        shutil.rmtree(generation, ignore_errors=True)


def remove_building(directory: str | Path) -> None:
    """Delete a directory in which a copy was being built, and whatever is left in it."""
    shutil.rmtree(repository_directory(directory), ignore_errors=True)


def drop_others(directory: str | Path) -> None:
    """Delete generations that are not in use and what crashed builders left."""
    directory = repository_directory(directory)
    root = current_root(directory)
    for path in directory.iterdir():
        is_ours = path.name.startswith("building-") or (path.name[:1] == "g" and path.name[1:].isdigit())
        if is_ours and path != root:
            shutil.rmtree(path, ignore_errors=True)


def _switch(directory: Path, name: str) -> None:
    temporary = directory / f"{LINK}.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(name)
    temporary.rename(directory / LINK)
