"""What hgfleet keeps beside one open repository object: options, the log agent, what it may do now.

Promises: `of(repo)` is the same object for a repository and all its filtered views.
Does not: decide anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgfleet.hgext.options import Options
from hgfleet.runtime.faults import NO_FAULTS, Faults, faults_from_environment

if TYPE_CHECKING:
    from hgfleet.adapters.agent_client import LogAgentClient
    from hgfleet.errors import FleetError
    from hgfleet.hgext.append import Accepted, Base


@dataclass(slots=True)
class Binding:
    """The state beside a repository object."""

    options: Options
    root: Path  # the generation that this object opened
    faults: Faults = NO_FAULTS
    is_applying: bool = False  # what is written now comes from the log
    is_checked: bool = False  # under the lock held now, the copy was compared with its log
    base: Base | None = None  # what a change under the lock held now is made on
    accepted: Accepted | None = None  # the last change of this process that the log has taken
    refusal: FleetError | None = None  # why nothing may be written under the lock held now
    agent_client: LogAgentClient | None = field(default=None, repr=False)

    @property
    def directory(self) -> Path:
        """`repos/<RepoId>`."""
        return self.root.parent

    @property
    def store(self) -> Path:
        """The repository's store."""
        return self.root / ".hg" / "store"

    @property
    def is_writer(self) -> bool:
        """Whether what this process writes now is its own change."""
        return self.options.role == "primary" and not self.is_applying

    @property
    def agent(self) -> LogAgentClient:
        """The client of this host's log agent."""
        if self.agent_client is None:
            from hgfleet.adapters.agent_client import LogAgentClient

            # Asked under the lock: an agent that hangs must not hold everybody up for long.
            seconds = self.options.append_deadline_seconds
            self.agent_client = LogAgentClient(Path(self.options.agent_socket), seconds)
        return self.agent_client

    @contextmanager
    def applying(self) -> Iterator[None]:
        """Let what comes from the log be written: no checks, no hooks, no append."""
        before = self.is_applying
        self.is_applying = True
        try:
            yield
        finally:
            self.is_applying = before

    def forget_lock(self) -> None:
        """Begin anew: another lock was taken."""
        self.is_checked = False
        self.base = None
        self.refusal = None


def make(options: Options, root: Path) -> Binding:
    """Return the binding of a repository that was just opened."""
    return Binding(options, root, faults_from_environment(options.allow_faults))


def of(repo: Any) -> Binding:
    """Return a repository's binding."""
    bound: Binding = repo.unfiltered().hgfleet
    return bound
