"""Creating, deleting and renaming repositories (PROTOCOL, "Catalogue").

    create: `created` in the repository's partition -> read back -> `bind` in the catalogue -> done
    delete: `unbind` in the catalogue -> done from here on; then `deleted` in the partition
    rename: one message in the catalogue

Promises: a path exists from its bind to its unbind and nothing else decides that; an operation goes on when
its client is gone; what a crash leaves created and unbound is deleted by the next life (agent_primary), never
bound.
Does not: decide who may do it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from hgfleet.errors import InDoubtError, PoisonError, RejectedError, TransientError
from hgfleet.model.catalogue import Binding, bind_body, rename_body, unbind_body
from hgfleet.model.ids import (
    CATALOGUE,
    NO_DIGEST,
    Epoch,
    Partition,
    RepoId,
    RepoPath,
    Seq,
    new_repo_id,
    parse_repo_path,
)
from hgfleet.model.message import Envelope, Json, Kind, Message, make_message
from hgfleet.model.settings import RepoSettings, parse_repo_settings
from hgfleet.replication.agent_appends import AppendDesk, reach
from hgfleet.replication.agent_primary import Primary, not_serving
from hgfleet.replication.agent_view import CATALOGUE_PLACE, AgentView, pushdata
from hgfleet.runtime import clock
from hgfleet.runtime.faults import Faults

DELETED_WAIT_SECONDS = 2.0  # a delete's answer waits so long for what follows its point of no return
T = TypeVar("T")

logger = logging.getLogger("hgfleet.replication.agent_catalogue")


@dataclass(frozen=True, slots=True)
class Author:
    """Who asks, and the id that follows the change through the log."""

    identity: str
    trace: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of the catalogue that counts."""

    repository: RepoId
    partition: Partition
    catalogue_seq: Seq


class CatalogueDesk:
    """Takes the operations; each runs to its end, whoever waits for it."""

    def __init__(self, view: AgentView, desk: AppendDesk, primary: Primary, faults: Faults) -> None:
        self._view = view
        self._desk = desk
        self._primary = primary
        self._faults = faults
        self._turn = asyncio.Lock()  # one catalogue message at a time: each is conditional on all before it
        self._tasks: set[asyncio.Task[Any]] = set()

    async def create(self, path: str, settings: object, author: Author, wait_seconds: float) -> Changed:
        """Create a repository.

        Raises RejectedError (`repo.exists`, `repo.bad-path`, `repo.bad-settings`, …) or TransientError, and
        then nothing was changed; InDoubtError when that is open after `wait_seconds`.
        """
        new_path, checked = parse_repo_path(path), check_settings(settings)
        self._primary.require_catalogue()
        if self._view.lost(new_path) is not None:
            raise log_behind(new_path)
        self._view.catalogue.check_new_path(new_path)
        return await self._finish(self._create(new_path, checked, author), wait_seconds)

    async def delete(self, path: str, author: Author, wait_seconds: float) -> Changed:
        """Delete the repository at a path; errors as of create(). One that the log has lost is given up."""
        self._primary.require_catalogue()
        lost = self._view.lost(path)
        if lost is not None:
            self._view.forget_lost(lost.path)
            return Changed(lost.repository, lost.partition, self._view.catalogue.seq)
        binding = self._view.catalogue.resolve(path)
        changed, deletion = await self._finish(self._delete(binding, author), wait_seconds)
        await asyncio.wait({deletion}, timeout=DELETED_WAIT_SECONDS)
        return changed

    async def rebind(self, binding: Binding, author: Author, wait_seconds: float) -> Changed:
        """Bind the path of a repository that the log has lost, first of all; errors as create()."""
        self._primary.require_catalogue()
        self._view.catalogue.check_new_path(binding.path)
        return await self._finish(self._bind(binding, author), wait_seconds)

    async def rename(self, path: str, new_path: str, author: Author, wait_seconds: float) -> Changed:
        """Move the repository at a path to another; errors as of create()."""
        self._primary.require_catalogue()
        binding, target = self._view.catalogue.resolve(path), parse_repo_path(new_path)
        return await self._finish(self._rename(binding, target, author), wait_seconds)

    def close(self) -> None:
        """Leave what is under way to the next life."""
        for task in self._tasks:
            task.cancel()

    async def _finish(self, operation: Coroutine[Any, Any, T], wait_seconds: float) -> T:
        task = self._start(operation)
        done, _ = await asyncio.wait({task}, timeout=wait_seconds)
        if not done:
            task.add_done_callback(_note_end)
            raise InDoubtError("log.in-doubt", "the log did not confirm the change")
        return task.result()

    def _start(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- create

    async def _create(self, path: RepoPath, settings: RepoSettings, author: Author) -> Changed:
        repository = new_repo_id()
        partition = self._choose_partition(repository)
        message = self._created_message(partition, repository, settings, author)
        result = await self._desk.hand_over(pushdata(partition), message)
        if not result.is_accepted:
            raise result.refusal()
        binding = Binding(path, repository, partition)
        try:
            await reach(self._faults, "agent-create-unbound")
            return await self._bind(binding, author)
        except (RejectedError, TransientError):
            await self._primary.delete_messages(partition, repository)
            raise

    def _choose_partition(self, repository: RepoId) -> Partition:
        """Spread repositories evenly; the choice is recorded, so another rule later moves nothing."""
        partition = Partition(int(repository[:8], 16) % len(self._view.readers))
        if not self._primary.serving_epoch(partition):
            raise not_serving()
        return partition

    def _created_message(
        self, partition: Partition, repository: RepoId, settings: RepoSettings, author: Author
    ) -> Message:
        envelope = Envelope(
            kind=Kind.CREATED,
            repository=repository,
            seq=Seq(1),
            parent=NO_DIGEST,
            epoch=self._primary.serving_epoch(partition),
            at=clock.now(),
            identity=author.identity,
            trace=author.trace,
            body={"settings": settings.to_json()},
        )
        return make_message(envelope)

    async def _bind(self, binding: Binding, author: Author) -> Changed:
        def check() -> None:
            self._view.catalogue.check_new_path(binding.path)

        body = bind_body(binding.path, binding.repository, binding.partition)
        return await self._change(Kind.BIND, body, binding, author, check)

    # ---- delete and rename

    async def _delete(self, binding: Binding, author: Author) -> tuple[Changed, asyncio.Task[bool]]:
        """Unbind, and begin with what follows: the caller need not wait for it."""
        body = unbind_body(binding.path, binding.repository)
        changed = await self._change(Kind.UNBIND, body, binding, author, lambda: self._check_bound(binding))
        with suppress(TransientError):  # nothing holds it up any more
            await reach(self._faults, "agent-delete-unbound")
        deletion = self._primary.delete_messages(binding.partition, binding.repository)
        return changed, self._start(deletion)

    async def _rename(self, binding: Binding, new_path: RepoPath, author: Author) -> Changed:
        def check() -> None:
            self._check_bound(binding)
            self._view.catalogue.check_new_path(new_path)

        body = rename_body(binding.path, new_path, binding.repository)
        return await self._change(Kind.RENAME, body, binding, author, check)

    def _check_bound(self, binding: Binding) -> None:
        """Check that nobody else moved or removed it since it was looked up."""
        if self._view.catalogue.repository_at(binding.path) != binding:
            raise RejectedError("repo.unknown", "no such repository", status=404, path=binding.path)

    # ---- one message in the catalogue

    async def _change(
        self, kind: Kind, body: dict[str, Json], binding: Binding, author: Author, check: Callable[[], None]
    ) -> Changed:
        """Append one conditional message; when another took its seq, check again and repeat."""
        async with self._turn:
            while True:
                epoch = self._primary.require_catalogue()
                check()
                message = self._catalogue_message(kind, epoch, body, author)
                result = await self._desk.hand_over(CATALOGUE_PLACE, message)
                if result.is_accepted:
                    return Changed(binding.repository, binding.partition, result.settled.append.seq)
                if result.settled.code != "push.raced":
                    raise result.refusal()

    def _catalogue_message(self, kind: Kind, epoch: Epoch, body: dict[str, Json], author: Author) -> Message:
        catalogue = self._view.catalogue
        envelope = Envelope(
            kind=kind,
            repository=CATALOGUE,
            seq=Seq(catalogue.seq + 1),
            parent=catalogue.digest,
            epoch=epoch,
            at=clock.now(),
            identity=author.identity,
            trace=author.trace,
            body=body,
        )
        return make_message(envelope)


def log_behind(path: str) -> RejectedError:
    """Return the error for a repository that an earlier log had and this one has not."""
    return RejectedError(
        "log.behind",
        "the log has lost this repository; its copies are ahead of it",
        hint="see what 'hgfleet log adopt' reports",
        status=409,
        path=path,
    )


def check_settings(values: object) -> RepoSettings:
    """Return the settings; raise RejectedError `repo.bad-settings` for what no reader would take."""
    try:
        return parse_repo_settings(values)
    except PoisonError as error:
        raise RejectedError("repo.bad-settings", "bad repository settings", reason=str(error)) from error


def _note_end(task: asyncio.Task[Any]) -> None:
    """Say what became of an operation that nobody waits for any more; its client was told to find out."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("catalogue.operation-failed", extra={"reason": str(error)})
