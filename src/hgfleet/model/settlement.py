"""The in-doubt rule: what became of an append, told only when it can no longer change.

A message that was handed to the log and not answered for is not refused: it may be appended minutes later,
also after its sender died. It is settled when this reader has read something after which it either counts or
never will: a message that counts at its seq (itself, a `void` or another's), or a newer epoch.

Promises: ACCEPTED is said only of a message that counts for every reader, REFUSED only of one that never
will; while a repository's append is unsettled, no other of that repository begins.
Does not: append, wait or know time; the log agent sends what is asked for here and reports what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hgfleet.errors import InvariantError, RejectedError, TransientError
from hgfleet.model.acceptance import PartitionReader, RepoHead, Verdict
from hgfleet.model.ids import Digest, Epoch, RepoId, Seq
from hgfleet.model.message import Message


class Outcome(StrEnum):
    """What can be told about an append."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # the only one that allows "nothing was changed"
    UNSETTLED = "unsettled"


@dataclass(frozen=True, slots=True)
class HandedOver:
    """One append as it was handed to the log: the digest identifies it, nothing else does."""

    repository: RepoId
    epoch: Epoch
    seq: Seq
    parent: Digest
    digest: Digest


@dataclass(frozen=True, slots=True)
class Settled:
    """An append and what became of it; `code` says why it was refused."""

    append: HandedOver
    outcome: Outcome
    code: str = ""


def handed_over(message: Message) -> HandedOver:
    """Describe a message that is about to be handed to the log."""
    envelope = message.envelope
    return HandedOver(envelope.repository, envelope.epoch, envelope.seq, envelope.parent, message.digest)


def check_append(
    reader: PartitionReader, own_epoch: Epoch, repository: RepoId, base_seq: Seq, base_digest: Digest
) -> None:
    """Check that an append on that base may be handed over; the caller checks that none is unsettled.

    Raises TransientError `log.not-serving`, `repo.parked` or `push.raced`, RejectedError `log.behind`;
    nothing was changed then.
    """
    if not is_serving(reader, own_epoch):
        raise TransientError("log.not-serving", "this host does not accept changes")
    if repository in reader.parked:
        raise TransientError(
            "repo.parked", "the repository's log does not fit together", reason=reader.parked[repository]
        )
    _check_base(reader.head(repository), base_seq, base_digest)


def is_serving(reader: PartitionReader, own_epoch: Epoch) -> bool:
    """Whether a life that won `own_epoch` has read it in this partition and nothing newer."""
    return own_epoch > 0 and reader.epoch == own_epoch


def _check_base(head: RepoHead, base_seq: Seq, base_digest: Digest) -> None:
    if base_seq < head.seq:
        raise TransientError("push.raced", "repository changed while pushing", base=base_seq, log=head.seq)
    if base_seq > head.seq or base_digest != head.digest:
        raise RejectedError(
            "log.behind",
            "this copy is ahead of its log",
            hint="see what 'hgfleet log adopt' reports",
            status=409,
            base=base_seq,
            log=head.seq,
        )


def outcome_of_earlier(is_in_log: bool, *, append_epoch: Epoch, serving_epoch: Epoch) -> Outcome:
    """Settle an append of a life that is gone, asked of the next one on this host.

    `serving_epoch` is the one under which that life serves the partition, 0 if it does not. Only behind a
    newer epoch than the append's own does nothing of the earlier life count any more; before that, absence
    says nothing.
    """
    if is_in_log:
        return Outcome.ACCEPTED
    return Outcome.REFUSED if serving_epoch > append_epoch else Outcome.UNSETTLED


class Appends:
    """The unsettled appends of one life of a log agent in one partition or the catalogue, one per repository.

    Observe every message that the agent's own reader of that partition takes.
    """

    def __init__(self) -> None:
        self._unsettled: dict[RepoId, HandedOver] = {}
        self._unanswered: set[RepoId] = set()

    def is_closed(self, repository: RepoId) -> bool:
        """Whether the repository has to wait for an earlier append to be settled."""
        return repository in self._unsettled

    def unsettled(self, repository: RepoId) -> HandedOver | None:
        """Return the append that the repository waits for."""
        return self._unsettled.get(repository)

    def begin(self, append: HandedOver) -> None:
        """Note the append *before* handing it over; TransientError `log.unsettled` when another is open."""
        if self.is_closed(append.repository):
            raise TransientError(
                "log.unsettled", "an earlier change is not confirmed yet", hint="try again soon"
            )
        self._unsettled[append.repository] = append

    def withdraw(self, repository: RepoId) -> Settled:
        """Settle an append that the log surely did not and will not take (its TransientError)."""
        if repository in self._unanswered:
            raise InvariantError("append.withdrawn", "an append in doubt cannot be withdrawn")
        return self._settle(self._unsettled[repository], Outcome.REFUSED, "log.unreachable")

    def leave_unanswered(self, repository: RepoId) -> None:
        """Note that the log did not answer: from now on `voids` asks for one."""
        if repository in self._unsettled:
            self._unanswered.add(repository)

    def voids(self) -> list[HandedOver]:
        """Return the appends whose seq a `void` (same seq, parent and epoch) should take; repeat until empty.

        The catalogue has no `void`: there the same bytes are sent again. A second copy of a
        message never counts twice.
        """
        return [self._unsettled[repository] for repository in sorted(self._unanswered)]

    def observe(self, message: Message, verdict: Verdict, epoch: Epoch) -> list[Settled]:
        """Take a message as the reader judged it, with the epoch in force then; return what it settled."""
        settled: list[Settled] = []
        if verdict in {Verdict.COUNTS, Verdict.EPOCH}:  # in the catalogue an epoch message counts at its seq
            settled += self._observe_counted(message)
        if verdict is Verdict.EPOCH:
            settled += self._observe_epoch(epoch)
        return settled

    def _observe_counted(self, message: Message) -> list[Settled]:
        append = self._unsettled.get(message.envelope.repository)
        if append is None or message.envelope.seq < append.seq:
            return []
        if message.digest == append.digest:
            return [self._settle(append, Outcome.ACCEPTED)]
        return [self._settle(append, Outcome.REFUSED, "push.raced")]

    def _observe_epoch(self, epoch: Epoch) -> list[Settled]:
        """Settle what did not count before a newer epoch was read: it never will."""
        late = [append for append in self._unsettled.values() if append.epoch < epoch]
        return [self._settle(append, Outcome.REFUSED, "epoch.lost") for append in late]

    def _settle(self, append: HandedOver, outcome: Outcome, code: str = "") -> Settled:
        del self._unsettled[append.repository]
        self._unanswered.discard(append.repository)
        return Settled(append, outcome, code)
