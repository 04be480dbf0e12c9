"""Applies messages of the log to a copy, exactly once each, in Mercurial's own transaction.

The payload brings changesets, phases, bookmarks and obsmarkers; the pushlog row and the seq file are in the
same transaction. No hooks and no checks run: the message was accepted, a copy has no say.

Promises: after a crash at any point the copy is in the state before or after each message; a message applied
twice changes nothing; what does not lead to the state that the message names is rolled back and raised as
PoisonError, with the seq that the copy has in `applied_seq`.
Does not: fetch messages, judge whether they count, or expose anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hgfleet.adapters import view_files
from hgfleet.errors import PoisonError
from hgfleet.hgext import (
    binding,
    copies,
    creation,
    fingerprint,
    generations,
    journal,
    pushlog,
    sections,
    seqfile,
    steps,
)
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.push_errors import MISFITS
from hgfleet.hgext.sections import FetchBlob
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.acceptance import check_next
from hgfleet.model.adoption import parse_adopted, since_reset
from hgfleet.model.ids import Partition, Position
from hgfleet.model.message import Envelope, Kind, Message
from hgfleet.model.payload import PastPush, Tag
from hgfleet.model.settings import parse_repo_settings
from hgfleet.model.state import Fingerprint, parse_fingerprint

OnApplied = Callable[[Any, SeqState], None]
Step = tuple[Message, Position]  # a message and the position after it


def apply_messages(
    copy: Copy,
    partition: Partition,
    messages: Sequence[Step],
    fetch_blob: FetchBlob,
    on_applied: OnApplied | None = None,
    *,
    is_each_alone: bool = False,
) -> SeqState:
    """Apply accepted messages in order and return the state after the last; those applied already are
    skipped.

    One transaction takes all, or each its own when `is_each_alone`; after each transaction `on_applied(repo,
    state)` is called under the repository's lock. `fetch_blob(sha256)` is a context that yields a file with
    the blob. Raises PoisonError, what `fetch_blob` raises, or OSError (the disk): the copy then has `state`
    up to a whole message.
    """
    state = copy.state
    for run in _runs(since_reset(messages), is_each_alone):
        if state is not None and run[-1][0].envelope.seq <= state.seq:
            check_next(state, run[-1][0])  # a repetition; another message at the copy's own seq is a fork
        else:
            state = _apply_run(copy, partition, run, fetch_blob, on_applied)
    if state is None:
        raise PoisonError("message.no-repository", "the first message of a repository must create it")
    return state


def _runs(messages: Sequence[Step], is_each_alone: bool) -> Iterator[list[Step]]:
    """Cut where one transaction must end: what creates or removes a repository stands alone."""
    run: list[Step] = []
    for step in messages:
        is_alone = is_each_alone or step[0].envelope.kind in {Kind.CREATED, Kind.DELETED, Kind.RESET}
        if run and is_alone:
            yield run
            run = []
        run.append(step)
        if is_alone:
            yield run
            run = []
    if run:
        yield run


def _apply_run(
    copy: Copy, partition: Partition, run: list[Step], fetch_blob: FetchBlob, on_applied: OnApplied | None
) -> SeqState | None:
    match run[0][0].envelope.kind:
        case Kind.CREATED:
            _create(copy, partition, *run[0], on_applied)
        case Kind.DELETED:
            _delete(copy, *run[0])
        case Kind.RESET:
            _reset(copy, partition, run[0], fetch_blob, on_applied)
        case _:
            return _apply_in_repository(copy, run, fetch_blob, on_applied)
    return copy.state


# ---- kinds that stand alone


def _create(
    copy: Copy, partition: Partition, message: Message, position: Position, on_applied: OnApplied | None
) -> None:
    envelope = message.envelope
    if copy.state is not None or envelope.seq != 1 or envelope.parent:
        raise _poison(envelope, "message.gap", "a repository can be created only once, by its first message")
    state = SeqState(
        repository=envelope.repository,
        partition=partition,
        seq=envelope.seq,
        digest=message.digest,
        position=position,
        settings=parse_repo_settings(envelope.body.get("settings")),
    )
    generations.create_next(copy.directory, lambda root: creation.create_repository(root, state))
    _tell(copy, state, on_applied)


def _tell(copy: Copy, state: SeqState, on_applied: OnApplied | None) -> None:
    if on_applied is not None:
        repo = copy.repo
        with binding.of(repo).applying(), repo.lock():
            on_applied(repo, state)


def _delete(copy: Copy, message: Message, position: Position) -> None:
    state = copy.state
    if state is None:
        raise _poison(message.envelope, "message.gap", "what is deleted was never created")
    _check_follows(state, message)
    last = state.advanced(seq=message.envelope.seq, digest=message.digest, position=position)
    copy.forget()
    generations.remove(copy.directory, last)


def _reset(
    copy: Copy, partition: Partition, step: Step, fetch_blob: FetchBlob, on_applied: OnApplied | None
) -> None:
    """Make the copy what the message carries: by name, when it is that already, else in a new generation."""
    envelope, state = step[0].envelope, copy.state
    if state is not None and (state.repository != envelope.repository or not copy.is_present):
        raise _poison(envelope, "message.gap", "no copy of this repository can be replaced here")
    adopted = parse_adopted(envelope.body)
    if (
        state is not None
        and adopted is not None
        and (state.seq, state.digest) == (adopted.seq, adopted.digest)
    ):
        _rebind(copy, partition, step, on_applied)
        return
    root = generations.current_root(copy.directory)
    if root is not None and view_files.read_exposed(root / ".hg") is not None:
        # Its readers are moved from state to state together, and by whoever drives this copy: built beside.
        raise _poison(envelope, "copy.replaced", "the log has replaced the state that this copy shows")
    _build(copy, partition, step, fetch_blob)
    _tell(copy, _state_after(step, partition, _parse_fingerprint(envelope)), on_applied)


def _rebind(copy: Copy, partition: Partition, step: Step, on_applied: OnApplied | None) -> None:
    """Take over the message's place in the log: the copy has its state."""
    repo = copy.repo
    bound = binding.of(repo)
    with _quiet(repo), bound.applying(), repo.lock():
        journal.recover_abandoned(repo)
        with repo.transaction(b"hgfleet-apply") as tr:
            state = _state_after(step, partition, _verify(repo, tr, step[0].envelope))
            steps.commit_state(tr, state)
            bound.faults.reach("apply-before-close")
        creation.configure(repo, state.settings)
        if on_applied is not None:
            on_applied(repo, state)


def _build(copy: Copy, partition: Partition, step: Step, fetch_blob: FetchBlob) -> None:
    """Fill a new generation and put it in use; the one before stays, for a person to look into."""

    def build(root: Path) -> None:
        creation.create_repository(root, SeqState(step[0].envelope.repository, partition))
        repo = copies.open_repository(copy.ui, root)
        with _quiet(repo), binding.of(repo).applying(), repo.lock():
            _fill(repo, partition, step, fetch_blob)

    generations.create_next(copy.directory, build)
    copy.forget()


def _fill(repo: Any, partition: Partition, step: Step, fetch_blob: FetchBlob) -> None:
    envelope = step[0].envelope
    with repo.transaction(b"hgfleet-apply") as tr:
        files = _apply_payload(repo, tr, step[0], fetch_blob).files
        for tag, name in ((Tag.PUSHERS, pushlog.PUSHERS_NAME), (Tag.PUSHLOG, pushlog.NAME)):
            if files.get(tag):  # nobody has this generation yet: no transaction need undo it
                (binding.of(repo).store / name).write_bytes(files[tag])
        steps.commit_state(tr, _state_after(step, partition, _verify(repo, tr, envelope)))


def _state_after(step: Step, partition: Partition, fingerprint_after: Fingerprint) -> SeqState:
    (message, position), envelope = step, step[0].envelope
    return SeqState(
        repository=envelope.repository,
        partition=partition,
        seq=envelope.seq,
        digest=message.digest,
        position=position,
        fingerprint=fingerprint_after,
        settings=parse_repo_settings(envelope.body.get("settings")),
    )


# ---- kinds that change a repository


def _apply_in_repository(
    copy: Copy, run: list[Step], fetch_blob: FetchBlob, on_applied: OnApplied | None
) -> SeqState:
    try:
        repo = copy.repo
    except LookupError as exc:
        raise _poison(run[0][0].envelope, "message.gap", "the repository was not created here") from exc
    bound = binding.of(repo)
    bound.faults.reach("apply-before-transaction")
    try:
        with _quiet(repo), bound.applying(), repo.lock():
            journal.recover_abandoned(repo)
            return _apply_locked(repo, run, fetch_blob, on_applied)
    except PoisonError as exc:
        copy.forget()
        state = copy.state
        exc.context.setdefault("applied_seq", state.seq if state else 0)
        raise


def _apply_locked(
    repo: Any, run: list[Step], fetch_blob: FetchBlob, on_applied: OnApplied | None
) -> SeqState:
    try:
        return _apply_in_transaction(repo, run, fetch_blob, on_applied)
    except PoisonError:
        if len(run) == 1:
            raise
        for step in run[:-1]:  # all before the one that does not fit
            _apply_in_transaction(repo, [step], fetch_blob, on_applied)
        return _apply_in_transaction(repo, run[-1:], fetch_blob, on_applied)


def _apply_in_transaction(
    repo: Any, run: list[Step], fetch_blob: FetchBlob, on_applied: OnApplied | None
) -> SeqState:
    bound = binding.of(repo)
    state = seqfile.read(bound.root, is_locked=True)
    if state is None:
        raise PoisonError("seqfile.missing", "the repository has lost its seq file")
    fresh = [step for step in run if step[0].envelope.seq > state.seq]
    if not fresh:
        return state
    before = state.settings
    with repo.transaction(b"hgfleet-apply") as tr:
        for message, position in fresh:
            state = _apply_one(repo, tr, state, message, position, fetch_blob)
        steps.commit_state(tr, state)
        bound.faults.reach("apply-before-close")
    bound.faults.reach("apply-after-close")
    if state.settings != before:
        creation.configure(repo, state.settings)
    if on_applied is not None:
        on_applied(repo, state)
    return state


def _apply_one(
    repo: Any, tr: Any, state: SeqState, message: Message, position: Position, fetch_blob: FetchBlob
) -> SeqState:
    envelope = message.envelope
    _check_follows(state, message)
    after = state.advanced(seq=envelope.seq, digest=message.digest, position=position)
    match envelope.kind:
        case Kind.PUSH:
            _apply_push(repo, tr, message, fetch_blob)
            return after.advanced(fingerprint=_verify(repo, tr, envelope))
        case Kind.SETTINGS:
            return after.advanced(settings=parse_repo_settings(envelope.body.get("settings")))
        case Kind.VOID:
            return after
        case _:
            raise _poison(envelope, "message.unsupported", "a kind that changes no repository")


def _check_follows(state: SeqState, message: Message) -> None:
    if message.envelope.repository != state.repository:
        raise _poison(message.envelope, "message.misrouted", "a message of another repository")
    check_next(state, message)


def _parse_fingerprint(envelope: Envelope) -> Fingerprint:
    return parse_fingerprint(envelope.body.get("fingerprint"))


def _verify(repo: Any, tr: Any, envelope: Envelope) -> Fingerprint:
    expected = _parse_fingerprint(envelope)
    found = fingerprint.take(repo, steps.pushes_after(repo, tr), tr)
    if found != expected:
        parts = ", ".join(
            name for name, value in expected.to_json().items() if found.to_json()[name] != value
        )
        raise _poison(envelope, "state.differs", "applying it led to another state", parts=parts)
    return expected


# ---- a push


def _apply_push(repo: Any, tr: Any, message: Message, fetch_blob: FetchBlob) -> None:
    first_rev = len(repo.changelog)
    brought = _apply_payload(repo, tr, message, fetch_blob)
    if brought.files:
        raise _poison(message.envelope, "payload.misfit", "a push that brings a whole pushlog")
    _add_rows(repo, tr, message.envelope, first_rev, brought.past)


def _apply_payload(repo: Any, tr: Any, message: Message, fetch_blob: FetchBlob) -> sections.Pushlog:
    with sections.open_payload(message, fetch_blob) as source:
        try:
            return sections.apply_sections(repo, tr, source)
        except MISFITS as exc:
            raise _poison(
                message.envelope, "payload.misfit", "the payload does not fit this copy", reason=str(exc)
            ) from exc


def _add_rows(repo: Any, tr: Any, envelope: Envelope, first_rev: int, past: tuple[PastPush, ...]) -> None:
    revs = range(first_rev, len(repo.changelog))
    push_id = envelope.body.get("push_id")
    if not revs and push_id is None:
        return
    pusher = str(envelope.body.get("pusher", envelope.identity))
    if "\n" in pusher:
        raise _poison(envelope, "pushlog.pusher", "a pusher's name that is none")
    now = PastPush(len(revs), envelope.at, pusher)
    rows = steps.rows_of(steps.next_push_id(repo, tr), revs, now, past)
    if not revs or rows is None or rows[-1].push_id != push_id:
        raise _poison(envelope, "pushlog.gap", "a push id that is not the next one")
    for row in rows:
        steps.add_push(repo, tr, replace(row, seq=envelope.seq))


@contextmanager
def _quiet(repo: Any) -> Iterator[None]:
    """Keep what Mercurial says while applying from whoever listens on this process's streams."""
    with repo.ui.silent():
        yield


def _poison(envelope: Envelope, code: str, message: str, **context: str) -> PoisonError:
    poison = PoisonError(code, message, repository=envelope.repository, seq=envelope.seq)
    poison.context.update(context)
    return poison
