"""Builds the primary's copy of a repository anew from its log, when something else has altered it.

Mirrors cure their own copies (replication.mirror_work). The primary's is the one that a person may have
worked on, so it refuses writes (`repo.altered`) until a person asks for this.

Promises: the new copy is what the log says, built beside the old one and put in use by one rename; the old
generation stays on disk. A copy that is ahead of its log is never replaced.
Does not: merge anything of the old copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hgfleet.errors import InvariantError, PoisonError, RejectedError
from hgfleet.hgext import binding, generations, push_errors, recovery
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.ids import RepoId

if TYPE_CHECKING:
    from hgfleet.adapters.agent_client import LogAgentClient

_BESIDE = "rebuilding"


def rebuild(copy: Copy, repository: RepoId, agent: LogAgentClient) -> SeqState:
    """Replace the copy by what its log says and return its state.

    Raises RejectedError `repo.unknown`, `repo.deleted` or `log.behind`, or what kept the log from being
    applied: the copy in use is then what it was.
    """
    with recovery.host_failures(), _locked(copy):
        last = agent.last(repository)
        if last.is_deleted or last.partition is None:
            raise RejectedError("repo.unknown", "the log has no such repository", status=404)
        _refuse_if_ahead(copy, last.seq)
        beside = copy.directory / _BESIDE
        shutil.rmtree(beside, ignore_errors=True)
        fresh = Copy(copy.ui, beside)
        state = recovery.catch_up(fresh, repository, last, agent)
        root = generations.current_root(beside)
        if root is None:
            raise InvariantError("rebuild.nothing", "a copy was built and is not there")
        _put_in_use(copy, root)
        generations.remove_building(beside)
    copy.forget()
    return state


def _put_in_use(copy: Copy, built: Path) -> None:
    def move(target: Path) -> None:
        built.rename(target)

    generations.create_next(copy.directory, move)


def _refuse_if_ahead(copy: Copy, log_seq: int) -> None:
    try:
        state = copy.state
    except PoisonError:  # its seq file is damaged: nothing is deleted, so nothing can be lost
        return
    if state is not None and state.seq > log_seq:
        raise RejectedError(
            "log.behind", "the log is behind this copy", hint="an operator decides: hgfleet log adopt"
        )


@contextmanager
def _locked(copy: Copy) -> Iterator[None]:
    """Keep writers out of the old generation, unless it cannot even be opened."""
    try:
        repo = copy.repo
    except (LookupError, *push_errors.MISFITS):
        yield
        return
    with binding.of(repo).applying(), repo.lock():
        yield
