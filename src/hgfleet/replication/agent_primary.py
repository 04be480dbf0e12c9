"""How a log agent becomes the primary's, and notices that it no longer is.

The rules are PROTOCOL's, "Becoming and being primary".

Promises: it bids only when it may; it accepts changes in a partition only after it has read its own epoch
there and finished what earlier lives left half done; once it has read of a newer epoch it never accepts
anything again.
Does not: decide on a failover.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

from hgfleet.errors import InDoubtError, TransientError
from hgfleet.model.catalogue import epoch_body
from hgfleet.model.ids import CATALOGUE, NO_DIGEST, Digest, Epoch, HostName, Partition, RepoId, Seq
from hgfleet.model.message import Envelope, Kind, Message, encode_message, make_message
from hgfleet.model.settlement import is_serving
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication.agent_appends import AppendDesk
from hgfleet.replication.agent_log_io import LogIo
from hgfleet.replication.agent_view import CATALOGUE_PLACE, AgentView, pushdata
from hgfleet.runtime import clock

RETRY_SECONDS = 0.5

logger = logging.getLogger("hgfleet.replication.agent_primary")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Whether and as whom this life may bid."""

    host: HostName
    may_lead: bool  # it runs on a host that may accept changes
    takes_over: bool  # although another host owns the newest epoch (failover)
    may_found: bool = True  # also where no epoch was ever opened
    life: str = field(default_factory=lambda: uuid.uuid4().hex)


class Primary:
    """One life's claim to accept changes."""

    def __init__(self, candidate: Candidate, io: LogIo, view: AgentView, desk: AppendDesk) -> None:
        self.candidate = candidate
        self._io = io
        self._view = view
        self._desk = desk
        self._own_epoch = Epoch(0)
        self._opened: set[Partition] = set()

    # ---- questions

    @property
    def epoch(self) -> Epoch:
        """The epoch that this life holds; 0 before it has won one and after it has lost it."""
        is_newest = self._view.catalogue.newest_epoch == self._own_epoch
        return self._own_epoch if is_newest else Epoch(0)

    def serving_epoch(self, partition: Partition) -> Epoch:
        """Return the epoch under which changes are accepted in the partition; 0: they are not."""
        is_open = partition in self._opened and is_serving(self._view.readers[partition], self.epoch)
        return self.epoch if is_open else Epoch(0)

    def is_serving_all(self) -> bool:
        """Whether changes are accepted in every partition."""
        return all(self.serving_epoch(partition) for partition in self._view.readers)

    def require_catalogue(self) -> Epoch:
        """Return the epoch for changes of the catalogue. Raises TransientError `log.not-serving`."""
        if not self.epoch or self._view.catalogue.parked:
            raise not_serving(self._view.catalogue.parked)
        return self.epoch

    # ---- becoming

    async def run(self) -> None:
        """Bid if this life may, open every partition, then wait until a newer epoch is read."""
        if not self._may_bid():
            logger.info("agent.standby", extra={"owner": self._view.catalogue.owner.host})
            return
        if not await self._win():
            return
        await self._write_epochs()
        await asyncio.gather(*(self._open(partition) for partition in self._view.readers))
        if self.is_serving_all():
            logger.info("agent.serving", extra={"epoch": self.epoch})
        await self._view.until(lambda: self.epoch == 0)
        logger.warning("agent.deposed", extra={"owner": self._view.catalogue.owner.host})

    def _may_bid(self) -> bool:
        candidate, catalogue = self.candidate, self._view.catalogue
        is_founding = not catalogue.owner.host and not candidate.takes_over
        if not candidate.may_lead or (is_founding and not candidate.may_found):
            return False
        return catalogue.may_open_epoch(candidate.host, is_failover=candidate.takes_over)

    async def _win(self) -> bool:
        """Bid until a bid of ours counts; False when another host's did meanwhile."""
        while self._may_bid():
            if self._view.catalogue.parked:
                logger.error("catalogue.parked", extra={"reason": self._view.catalogue.parked})
                return False
            bid = self._bid()
            try:
                result = await self._desk.hand_over(CATALOGUE_PLACE, bid)
            except TransientError:
                result = None
            if result is not None and result.is_accepted:
                self._own_epoch = bid.envelope.epoch
                return True
            await self._pause()
        return False

    def _bid(self) -> Message:
        catalogue = self._view.catalogue
        number = Epoch(catalogue.newest_epoch + 1)
        return self._epoch_message(number, Seq(catalogue.seq + 1), catalogue.digest)

    def _epoch_message(self, number: Epoch, seq: Seq, parent: Digest) -> Message:
        envelope = Envelope(
            kind=Kind.EPOCH,
            repository=CATALOGUE,
            seq=seq,
            parent=parent,
            epoch=number,
            at=clock.now(),
            identity=f"host:{self.candidate.host}",
            trace=self.candidate.life,
            body=epoch_body(number, self.candidate.host, self.candidate.life),
        )
        return make_message(envelope)

    async def _pause(self) -> None:
        await self._view.until(lambda: False, RETRY_SECONDS)

    # ---- opening partitions

    async def _write_epochs(self) -> None:
        """Write the epoch to every partition; again while the log does not answer, as twice does no harm."""
        epoch = self._own_epoch
        wire = encode_message(self._epoch_message(epoch, Seq(0), NO_DIGEST))
        while self.epoch:
            missing = [number for number, reader in self._view.readers.items() if reader.epoch < epoch]
            if not missing:
                return
            with suppress(TransientError, InDoubtError):
                await self._io.append([NewRecord(*pushdata(number), wire) for number in missing])
            await self._view.until(
                lambda: all(reader.epoch >= epoch for reader in self._view.readers.values()), RETRY_SECONDS
            )

    async def _open(self, partition: Partition) -> None:
        """Finish what earlier lives left half done, then accept changes."""
        reader = self._view.readers[partition]
        while is_serving(reader, self.epoch):
            unfinished = self._view.catalogue.unfinished(reader)
            if not unfinished:
                self._opened.add(partition)
                return
            for repository in unfinished:
                await self.delete_messages(partition, repository)

    async def delete_messages(self, partition: Partition, repository: RepoId) -> bool:
        """Append `deleted` for an unbound repository until it counts; False when this life lost its epoch."""
        place, reader = pushdata(partition), self._view.readers[partition]
        while is_serving(reader, self.epoch) and repository not in reader.parked:
            if reader.head(repository).is_deleted:
                return True
            earlier = self._desk.unsettled(place, repository)
            if earlier is not None:
                await asyncio.wait({earlier})
                continue
            result = await self._desk.hand_over(place, self._deleted_message(partition, repository))
            if result.error is not None:
                await self._pause()
        return reader.head(repository).is_deleted

    def _deleted_message(self, partition: Partition, repository: RepoId) -> Message:
        head = self._view.readers[partition].head(repository)
        envelope = Envelope(
            kind=Kind.DELETED,
            repository=repository,
            seq=Seq(head.seq + 1),
            parent=head.digest,
            epoch=self.epoch,
            at=clock.now(),
            identity=f"host:{self.candidate.host}",
            trace=self.candidate.life,
        )
        return make_message(envelope)


def not_serving(reason: str = "") -> TransientError:
    """Return the error for a change that this life must not take."""
    context = {"reason": reason} if reason else {}
    return TransientError("log.not-serving", "this host does not accept changes", **context)
