"""Takes the state of a copy that is ahead of its log: the operation `adopt`.

    where the path is lost too: `bind` in the catalogue, for the very same repository
    in one append: `created`, where the log has nothing of it; a `void` for each seq that it lost; the `reset`

Bound first, unlike a new repository: what an earlier life left created and unbound is deleted for good, and
nobody could adopt it any more. Bound and empty it is behind its copies, like any other lost one.

Promises: the log goes from where the request says it ends to the `reset`, or not at all, under this life's
own epoch; repeated after any failure it goes on where it was.
Does not: judge the state, or look at copies.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.adoption import fill_up, parse_adopted
from hgfleet.model.catalogue import Binding
from hgfleet.model.ids import NO_DIGEST, Digest, Epoch, Partition, RepoId, Seq, parse_repo_path
from hgfleet.model.message import Envelope, Json, Kind, Message, PayloadRef
from hgfleet.model.settlement import check_append
from hgfleet.replication.agent_appends import Result
from hgfleet.replication.agent_catalogue import Author
from hgfleet.replication.agent_changes import ChangeDesk
from hgfleet.replication.agent_parts import AgentParts
from hgfleet.replication.agent_primary import not_serving
from hgfleet.replication.agent_view import pushdata
from hgfleet.runtime import clock


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is asked for; the log ends at (base_seq, base_digest)."""

    repository: RepoId
    path: str
    partition: Partition  # the one to use where the log knows of none
    base_seq: Seq
    base_digest: Digest
    body: dict[str, Json]
    author: Author
    payload: PayloadRef
    inline: bytes


class AdoptionDesk:
    """Takes adoptions, one at a time."""

    def __init__(self, parts: AgentParts, changes: ChangeDesk) -> None:
        self._parts = parts
        self._view = parts.view
        self._changes = changes
        self._turn = asyncio.Lock()

    async def adopt(self, adoption: Adoption, wait_seconds: float) -> dict[str, Any]:
        """Append and return the answer's fields, as of `append`. Raises RejectedError or TransientError."""
        if parse_adopted(adoption.body) is None:
            raise RejectedError("request.bad", "the body does not say what it adopts", field="body")
        async with self._turn:
            await self._changes.check_payload(adoption.payload, adoption.inline)
            self._check_alive(adoption.repository)
            partition = await self._bound(adoption, wait_seconds)
            return await self._changes.answer(await self._hand_over(adoption, partition))

    def _check_alive(self, repository: RepoId) -> None:
        catalogue = self._view.catalogue
        is_unbound = catalogue.partition_of(repository) is not None and catalogue.path_of(repository) is None
        if is_unbound or self._view.head(repository).is_deleted:
            raise RejectedError("repo.deleted", "the repository was deleted", status=404)

    async def _bound(self, adoption: Adoption, wait_seconds: float) -> Partition:
        """Return the repository's partition, after binding its path where the log has lost it."""
        catalogue = self._view.catalogue
        known = self._view.partition_of(adoption.repository)
        if catalogue.path_of(adoption.repository) is not None and known is not None:
            return known
        is_there = adoption.partition in self._view.readers
        partition = known if known is not None else adoption.partition if is_there else Partition(0)
        binding = Binding(parse_repo_path(adoption.path), adoption.repository, partition)
        await self._parts.catalogue_desk.rebind(binding, adoption.author, wait_seconds)
        return partition

    async def _hand_over(self, adoption: Adoption, partition: Partition) -> Result:
        place = pushdata(partition)
        if self._parts.desk.unsettled(place, adoption.repository) is not None:
            raise TransientError(
                "log.unsettled", "an earlier change is not confirmed yet", hint="try again soon"
            )
        # From here on nothing is awaited: what is checked is what is appended to.
        epoch = self._parts.primary.serving_epoch(partition)
        if not epoch:
            raise not_serving()
        reader = self._view.readers[partition]
        check_append(reader, epoch, adoption.repository, adoption.base_seq, adoption.base_digest)
        *before, reset = self._messages(adoption, epoch)
        return await self._parts.desk.hand_over(place, reset, before)

    @staticmethod
    def _messages(adoption: Adoption, epoch: Epoch) -> list[Message]:
        adopted = parse_adopted(adoption.body)
        last_lost = adopted.seq if adopted is not None else Seq(0)
        reset = Envelope(
            kind=Kind.RESET,
            repository=adoption.repository,
            seq=Seq(max(last_lost, adoption.base_seq, 1) + 1),
            parent=NO_DIGEST,
            epoch=epoch,
            at=clock.now(),
            identity=adoption.author.identity,
            trace=adoption.author.trace,
            body=adoption.body,
            payload=adoption.payload,
        )
        created = _created(reset) if adoption.base_seq == 0 else None
        return fill_up(created, adoption.base_seq, adoption.base_digest, reset, adoption.inline)


def _created(reset: Envelope) -> Envelope:
    return Envelope(
        kind=Kind.CREATED,
        repository=reset.repository,
        seq=Seq(1),
        parent=NO_DIGEST,
        epoch=reset.epoch,
        at=reset.at,
        identity=reset.identity,
        trace=reset.trace,
        body={"settings": reset.body["settings"]},
    )
