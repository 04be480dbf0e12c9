"""Small local repositories to push from, made with the real client."""

from __future__ import annotations

from pathlib import Path

from tests.support.clients import HgClient, Outcome

EVOLVE = ("--config", "experimental.evolution=all", "--config", "extensions.rebase=")


class WorkingCopy:
    """One person's clone."""

    def __init__(self, hg: HgClient, directory: Path) -> None:
        self.hg = hg
        self.directory = directory

    @classmethod
    def init(cls, hg: HgClient, directory: Path) -> WorkingCopy:
        """Make an empty repository."""
        hg.run("init", directory).ok()
        return cls(hg, directory)

    @classmethod
    def clone(cls, hg: HgClient, url: str, directory: Path) -> WorkingCopy:
        """Clone over the network."""
        hg.run("clone", url, directory).ok()
        return cls(hg, directory)

    def run(self, *args: str) -> Outcome:
        """Run hg inside the clone, evolution on."""
        return self.hg.run(*args, *EVOLVE, cwd=self.directory)

    def commit(self, text: str, *, file: str = "file.txt", content: str | None = None) -> str:
        """Write a file, commit it and return the changeset's id."""
        path = self.directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if content is not None else f"{text}\n")
        self.run("commit", "-A", "-q", "-m", text).ok()
        return self.node()

    def node(self, rev: str = ".") -> str:
        """Return the full id of a changeset."""
        return self.run("log", "-r", rev, "-T", "{node}").ok().out

    def push(self, url: str, *args: str) -> Outcome:
        """Push; a new head is fine."""
        return self.run("push", "-f", *args, url)
