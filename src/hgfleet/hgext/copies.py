"""One repository's copy on this host, opened once and used for long: by apply workers, sessions and commands.

Promises: the repository object belongs to the generation in use when it was asked for; its memory does not
grow with use.
Does not: apply anything (hgext.apply).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mercurial.repo import factory

from hgfleet.hgext import binding, generations, seqfile
from hgfleet.hgext.seqfile import SeqState


class Copy:
    """A copy under `repos/<RepoId>`, which may not exist yet."""

    def __init__(self, ui: Any, directory: str | Path) -> None:
        """Note where it is; `ui` is hgext.local_ui's or a session's."""
        self.ui = ui
        self.directory = generations.repository_directory(directory).resolve()
        self.viewed: SeqState | None = None  # the last state whose view this process made or saw
        self._repo: Any = None
        self._link = str(self.directory / generations.LINK)
        self._named = ("", Path())  # what the link said last, and the generation that this is

    @property
    def root(self) -> Path | None:
        """The generation in use, None when there is none."""
        try:
            name = os.readlink(self._link)
        except FileNotFoundError:
            return None
        if name != self._named[0]:
            self._named = (name, self.directory / name)
        return self._named[1]

    @property
    def state(self) -> SeqState | None:
        """What the copy is the result of; of a deleted one the last; None when there is none."""
        root = self.root
        return generations.deleted_state(self.directory) if root is None else seqfile.read(root)

    @property
    def is_present(self) -> bool:
        """Whether there is a repository."""
        return self.root is not None

    @property
    def repo(self) -> Any:
        """The unfiltered repository object of the generation in use; LookupError when there is none."""
        root = self.root
        if root is None:
            raise LookupError(f"no repository in {self.directory}")
        if self._repo is None or binding.of(self._repo).root != root:
            self._repo = open_repository(self.ui, root)
        return self._repo

    def adopt(self, repo: Any) -> None:
        """Use an object that is open already."""
        self._repo = repo.unfiltered()

    def forget(self) -> None:
        """Drop the repository object."""
        self._repo = self.viewed = None


def open_repository(ui: Any, root: str | Path) -> Any:
    """Open a generation; raise Mercurial's RepoError when it is none."""
    return factory.repository(ui, str(root).encode()).unfiltered()


def state_of(repo: Any) -> SeqState | None:
    """Return what an open repository is the result of, as of now on disk."""
    return seqfile.read(binding.of(repo).root)
