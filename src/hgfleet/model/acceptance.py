"""The acceptance rule: which messages of a partition count, decided alike by every reader.

Whoever reaches the log may write to it, a paused former primary included. What makes a message count is not
who wrote it: its epoch is the one in force there, its seq is the next and its parent is the message before.

Promises: two readers that took the same records from the same position agree on every verdict; nothing that
fits neither "next" nor "already known" nor "from an older epoch" is skipped: its repository is parked.
Does not: read the log, store positions, or know what a message's body says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from hgfleet.errors import PoisonError
from hgfleet.model.ids import NO_DIGEST, START, Digest, Epoch, Offset, Position, RepoId, Seq
from hgfleet.model.message import CATALOGUE_KINDS, SEQUENCED, Envelope, Kind, Message


class Verdict(StrEnum):
    """What taking a message did."""

    EPOCH = "epoch"  # an epoch message; the epoch in force may have risen
    COUNTS = "counts"  # it is the repository's next message, for every reader and for ever
    ABOUT = "about"  # of the epoch in force and of a kind that takes no seq
    IGNORED = "ignored"  # of an older epoch, or its seq is taken: it never counts
    PARKED = "parked"  # it cannot be, or its repository was parked before


NO_SEQ = Seq(0)


@dataclass(frozen=True, slots=True)
class RepoHead:
    """The last message of a repository that counts; `position` is the one after it."""

    seq: Seq = NO_SEQ
    digest: Digest = NO_DIGEST
    position: Position = START
    is_created: bool = False
    is_deleted: bool = False


NO_HEAD = RepoHead()


class Chained(Protocol):
    """Anything that knows the last message it has of one repository: a RepoHead, a copy's seq file."""

    @property
    def seq(self) -> Seq: ...
    @property
    def digest(self) -> Digest: ...


def link_fault(last: Chained, envelope: Envelope) -> str:
    """Return why `envelope`, whose seq is not known yet, is not the one after `last`: `gap`, `fork` or ""."""
    if envelope.seq > last.seq + 1:
        return "gap"
    return "" if envelope.parent == last.digest else "fork"


def check_next(last: Chained, message: Message) -> Verdict:
    """Judge a message that counts against one copy's own last message: COUNTS (apply it) or IGNORED (has it).

    Raises PoisonError `apply.gap` or `apply.fork`; the copy must be parked then, not written to.
    """
    envelope = message.envelope
    if envelope.seq < last.seq:
        return Verdict.IGNORED
    if envelope.seq == last.seq:
        fault = "" if message.digest == last.digest else "fork"
    else:
        fault = link_fault(last, envelope)
    if fault:
        raise _apply_fault(fault, last, envelope)
    return Verdict.IGNORED if envelope.seq == last.seq else Verdict.COUNTS


def _apply_fault(fault: str, last: Chained, envelope: Envelope) -> PoisonError:
    texts = {
        "gap": "a message before this one is missing",
        "fork": "this message does not follow the copy's last one",
    }
    return PoisonError(
        f"apply.{fault}",
        texts[fault],
        repository=envelope.repository,
        seq=envelope.seq,
        copy_seq=last.seq,
        hint="the copy is not a prefix of its log; reconcile it",
    )


class PartitionReader:
    """The fold of one pushdata partition, from a position on.

    `heads` may be newer than `position`: each repository goes on from the later of the two.
    """

    def __init__(
        self,
        position: Position = START,
        heads: Mapping[RepoId, RepoHead] | None = None,
        parked: Mapping[RepoId, str] | None = None,
    ) -> None:
        self._position = position
        self.heads: dict[RepoId, RepoHead] = dict(heads or {})
        self.parked: dict[RepoId, str] = dict(parked or {})

    @property
    def position(self) -> Position:
        """The next offset and the epoch in force there, always as a pair."""
        return self._position

    @property
    def epoch(self) -> Epoch:
        """The epoch in force: the highest that was read here."""
        return self._position.epoch

    def head(self, repository: RepoId) -> RepoHead:
        """Return the repository's head; NO_HEAD while no message of it counted."""
        return self.heads.get(repository, NO_HEAD)

    def live(self) -> Iterator[RepoId]:
        """Yield what was created and not deleted, parked repositories left out."""
        for repository, head in self.heads.items():
            if head.is_created and not head.is_deleted and repository not in self.parked:
                yield repository

    def take(self, message: Message, next_offset: Offset) -> Verdict:
        """Take the record at the position; `next_offset` is the one after it."""
        envelope = message.envelope
        if envelope.kind is Kind.EPOCH:
            self._position = Position(next_offset, self._raised(envelope.epoch))
            return Verdict.EPOCH
        self._position = replace(self._position, offset=next_offset)
        verdict = self._judge(envelope)
        if verdict is Verdict.COUNTS:
            self.heads[envelope.repository] = self._advanced(message)
        return verdict

    def take_unreadable(
        self, next_offset: Offset, reason: str, repository: RepoId | None = None, epoch: Epoch | None = None
    ) -> Verdict:
        """Take a record that could not be decoded: park the repository it names.

        An older epoch's is ignored. With `repository` None (nothing in it could be read) only the position
        moves: the repository's next message then shows the gap.
        """
        self._position = replace(self._position, offset=next_offset)
        if repository is None or (epoch is not None and epoch < self.epoch):
            return Verdict.IGNORED
        return self._park(repository, reason)

    def _raised(self, number: Epoch) -> Epoch:
        """Return the highest epoch read: a late message of a former primary must not bring its own back."""
        return max(self.epoch, number)

    def _judge(self, envelope: Envelope) -> Verdict:
        repository = envelope.repository
        if envelope.epoch < self.epoch:
            return Verdict.IGNORED
        if envelope.kind not in SEQUENCED and envelope.kind not in CATALOGUE_KINDS:
            return Verdict.ABOUT if envelope.epoch == self.epoch else Verdict.IGNORED
        if repository in self.parked:
            return Verdict.PARKED
        if envelope.kind in CATALOGUE_KINDS:
            return self._park(repository, f"a {envelope.kind} message in a repository's partition")
        if envelope.epoch > self.epoch:
            return self._park(repository, "a message of an epoch that was not opened here")
        return self._judge_link(envelope)

    def _judge_link(self, envelope: Envelope) -> Verdict:
        head = self.head(envelope.repository)
        if envelope.seq <= head.seq or self._position.offset <= head.position.offset:
            return Verdict.IGNORED
        fault = link_fault(head, envelope)
        if fault:
            return self._park(envelope.repository, f"{fault} after seq {head.seq}")
        return Verdict.COUNTS

    def _park(self, repository: RepoId, reason: str) -> Verdict:
        self.parked.setdefault(repository, reason)
        return Verdict.PARKED

    def _advanced(self, message: Message) -> RepoHead:
        envelope = message.envelope
        head = self.head(envelope.repository)
        return RepoHead(
            seq=envelope.seq,
            digest=message.digest,
            position=self._position,
            is_created=head.is_created or envelope.kind is Kind.CREATED,
            is_deleted=head.is_deleted or envelope.kind is Kind.DELETED,
        )
