"""Brings a copy to where its log is: before a session's hello, and again under the lock.

An abandoned transaction is rolled back, then the log's messages that the copy lacks are applied, as a mirror
applies them. A copy that does not fit its log is left alone: it may be read, and refuses writes with the
reason.

Promises: after `check_under_lock` without a refusal the copy is the state at the end of its log, and stays so
while the lock is held. Nothing that the log does not have is ever removed from a copy.
Does not: wait for another process that works on the copy, unless it takes the lock itself.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgfleet.errors import FleetError, PoisonError, RejectedError, TransientError
from hgfleet.hgext import (
    apply,
    binding,
    fingerprint,
    generations,
    journal,
    lock_guard,
    push_errors,
    pushlog,
    sections,
    seqfile,
)
from hgfleet.hgext.append import Base
from hgfleet.hgext.binding import Binding
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.adoption import since_reset
from hgfleet.model.ids import Digest, Partition, RepoId
from hgfleet.model.message import Envelope, Kind, decode_message

if TYPE_CHECKING:
    from hgfleet.adapters.agent_answers import LastMessage, LoggedMessage
    from hgfleet.adapters.agent_client import LogAgentClient


_REPLACED = "repo.replaced"
logger = logging.getLogger("hgfleet.hgext.recovery")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a copy stands after all that could be done; it can be read in any case."""

    state: SeqState
    problem: FleetError | None = None  # why it may be behind its log, or may not be written


def bring_up_to_date(copy: Copy, repository: RepoId, agent: LogAgentClient) -> Standing:
    """Create, recover or complete the copy as far as the log goes, where that is needed.

    For a session before its hello, and for whoever wants the end of the log; cheap when nothing is missing. A
    copy that another living process works on is left to it. Raises only when there is nothing to read:
    RejectedError `repo.unknown` or `repo.deleted`, or what kept the copy from being created.
    """
    try:
        with host_failures():
            return Standing(_bring_up_to_date(copy, repository, agent))
    except FleetError as problem:
        state = copy.state
        if state is None or not copy.is_present:
            raise
        return Standing(state, problem)


def _bring_up_to_date(copy: Copy, repository: RepoId, agent: LogAgentClient) -> SeqState:
    last = agent.last(repository)
    if last.is_deleted or last.partition is None or last.seq == 0:
        return _settle_absent(copy, repository, last, agent)
    state = copy.state
    if state is None:
        catch_up(copy, repository, last, agent)
    elif not copy.is_present:  # deleted here by a message that this log has lost
        raise _behind(state, last)
    elif _is_current(state, last) and not journal.is_abandoned(copy):
        return state
    elif not lock_guard.is_locked(copy.repo):
        _catch_up_locked(copy)
    return _present(copy)


def check_under_lock(repo: Any) -> None:
    """Make the copy current and note in its binding whether, and on what base, it may be written.

    The caller holds the lock, just taken. Does not raise for what only forbids writing.
    """
    bound = binding.of(repo)
    bound.is_checked, bound.base, bound.refusal = True, None, None
    try:
        with host_failures():
            journal.recover_abandoned(repo)
            bound.base = _current_base(repo, bound)
    except FleetError as exc:
        bound.refusal = exc


@contextmanager
def host_failures() -> Iterator[None]:
    """Class what this host's disk or Mercurial stumble over: the copy stays behind, and may be read."""
    try:
        yield
    except (OSError, *push_errors.MISFITS) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        raise TransientError(
            "copy.failed", "this host's copy could not be brought up to date", why=why
        ) from exc


def _current_base(repo: Any, bound: Binding) -> Base:
    _require_in_use(bound)
    state = consistent_state(repo, bound)
    last = bound.agent.last(state.repository)
    _refuse_unless_fit(state, last)
    if state.seq < last.seq:
        state = catch_up(_copy_of(repo, bound), state.repository, last, bound.agent)
        _require_in_use(bound)
    if last.serving_epoch == 0:
        raise TransientError("log.standby", "this host's log agent does not accept changes")
    return Base(state, last.serving_epoch)


def _settle_absent(copy: Copy, repository: RepoId, last: LastMessage, agent: LogAgentClient) -> SeqState:
    state = copy.state
    if state is None and not last.is_deleted:
        raise RejectedError(
            "repo.unknown", "the log has no such repository", status=404, repository=repository
        )
    if state is not None and state.seq > last.seq:
        raise _behind(state, last)
    if copy.is_present:
        catch_up(copy, repository, last, agent)
    raise RejectedError("repo.deleted", "the repository was deleted", status=404, repository=repository)


def _is_current(state: SeqState, last: LastMessage) -> bool:
    return state.seq == last.seq and state.digest == last.digest


def _present(copy: Copy) -> SeqState:
    state = copy.state
    if state is None:
        raise PoisonError(
            "seqfile.missing", "the repository has lost its seq file", directory=str(copy.directory)
        )
    return state


def _catch_up_locked(copy: Copy) -> None:
    """Take the lock, which brings the copy up to date, and raise what stood in the way."""
    repo = copy.repo
    bound = binding.of(repo)
    with repo.lock():
        if not bound.is_checked:  # a mirror's lock asks nobody
            check_under_lock(repo)
        if bound.refusal is not None and bound.refusal.code != _REPLACED:
            raise bound.refusal


def consistent_state(repo: Any, bound: Binding) -> SeqState:
    """Return the state that the seq file names; raise when the repository is another than it says."""
    state = seqfile.read(bound.root, is_locked=True)
    if state is None:
        raise PoisonError("seqfile.missing", "the repository has lost its seq file")
    found = fingerprint.take(repo, pushlog.count_pushes(bound.store))
    if found != state.fingerprint:
        recorded, actual = state.fingerprint.to_json(), found.to_json()
        parts = ", ".join(name for name in recorded if recorded[name] != actual[name])
        raise RejectedError(
            "repo.altered",
            "this copy was changed by something other than hgfleet",
            hint="an operator can repair it: hgfleet repo reconcile",
            differs=parts,
        )
    return state


def _require_in_use(bound: Binding) -> None:
    """Refuse to write into a generation that another has replaced; the next session has the new one."""
    root = generations.current_root(bound.directory)
    if root is None or root.name != bound.root.name:
        raise TransientError(_REPLACED, "the repository's state was replaced", hint="pull, and push again")


def _refuse_unless_fit(state: SeqState, last: LastMessage) -> None:
    if last.parked:
        raise TransientError("log.parked", "the log of this repository cannot be read on", reason=last.parked)
    if last.is_deleted:
        raise RejectedError("repo.deleted", "the repository was deleted", status=404)
    if state.seq > last.seq or (state.seq == last.seq and state.digest != last.digest):
        raise _behind(state, last)


def _behind(state: SeqState, last: LastMessage) -> RejectedError:
    return RejectedError(
        "log.behind",
        "the log is behind this copy, which refuses writes and stays as it is",
        hint="an operator decides: hgfleet log adopt",
        copy_seq=state.seq,
        log_seq=last.seq,
    )


def _copy_of(repo: Any, bound: Binding) -> Copy:
    copy = Copy(repo.baseui, bound.directory)
    copy.adopt(repo)
    return copy


def catch_up(copy: Copy, repository: RepoId, last: LastMessage, agent: LogAgentClient) -> SeqState:
    """Apply what the copy lacks, from a snapshot where there is no copy or the log has forgotten too much.

    Raises PoisonError (it stays behind), or RejectedError `log.overrun`: there is no snapshot to begin from.
    """
    if copy.state is None and last.seq:
        _restore(copy, repository, last, agent)
    while (seq := _seq_of(copy)) < last.seq:
        try:
            messages = agent.read(repository, seq).messages
        except RejectedError as error:
            if error.code != "log.overrun" or not _restore(copy, repository, last, agent):
                raise
        else:
            _apply_batch(copy, last, messages, agent)
    return _present(copy)


def _seq_of(copy: Copy) -> int:
    state = copy.state
    return state.seq if state is not None else 0


def _apply_batch(
    copy: Copy, last: LastMessage, messages: Sequence[LoggedMessage], agent: LogAgentClient
) -> None:
    steps = since_reset([(decode_message(message.wire), message.position) for message in messages])
    if not steps:
        raise TransientError("log.unreadable", "the log has messages that it does not give")
    _refuse_fork(copy.state, steps[0][0].envelope, last)
    apply.apply_messages(copy, Partition(last.partition or 0), steps, blob_fetcher(copy, agent))


def _restore(copy: Copy, repository: RepoId, last: LastMessage, agent: LogAgentClient) -> bool:
    """Make the copy that of the newest snapshot that can be had and is beyond it; False: there is none.

    The generation before stays, for a person to look into.
    """
    from hgfleet.hgext import snapshot  # it imports this module

    for named in agent.snapshots(repository):
        if not _seq_of(copy) < named.seq <= last.seq:
            continue
        try:
            with blob_fetcher(copy, agent)(named.blob.sha256) as source:
                snapshot.restore(copy, (named.seq, named.digest), source)
        except (PoisonError, RejectedError) as error:  # the next best is good enough
            names = {"repository": repository, "seq": named.seq, "reason": str(error)}
            logger.error("snapshot.unusable", extra=names)
        else:
            return True
    return False


def _refuse_fork(state: SeqState | None, following: Envelope, last: LastMessage) -> None:
    is_replaced = following.kind is Kind.RESET
    if state is not None and not is_replaced and following.parent != state.digest:
        raise _behind(state, last)


def blob_fetcher(copy: Copy, agent: LogAgentClient) -> sections.FetchBlob:
    """Return the way to get blobs through the log agent, into a file that is deleted after use."""

    @contextmanager
    def fetch(sha256: Digest) -> Iterator[Path]:
        copy.directory.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="blob-", dir=copy.directory)
        os.close(descriptor)
        try:
            agent.blob_get(sha256, Path(name))
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    return fetch
