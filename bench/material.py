"""Makes the repositories that are pushed, pulled and read: always the same ones, from nothing.

`hg debugbuilddag` writes one new file and one line of a shared file per changeset, all on one branch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.support.clients import HgClient


@dataclass(frozen=True, slots=True)
class Line:
    """A repository whose changesets follow one another: revision n stands on n - 1."""

    directory: Path
    nodes: tuple[str, ...]

    def copied(self, directory: Path) -> Line:
        """Return a byte-identical copy, for a second client that has done exactly the same so far."""
        shutil.copytree(self.directory, directory)
        return Line(directory, self.nodes)


def build_line(hg: HgClient, directory: Path, changesets: int) -> Line:
    """Make a repository of so many changesets in a row."""
    hg.run("init", directory).ok()
    options = ("--mergeable-file", "--new-file")
    hg.run("-R", directory, "debugbuilddag", *options, f"+{changesets}").ok()
    return Line(directory, read_nodes(hg, directory))


def read_nodes(hg: HgClient, directory: Path) -> tuple[str, ...]:
    """Return all changesets' ids in the order of revisions."""
    return tuple(hg.run("-R", directory, "log", "-r", "all()", "-T", "{node}\n").ok().out.split())
