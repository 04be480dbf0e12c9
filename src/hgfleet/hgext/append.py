"""The commit point: hands the whole change over to the log, from inside the transaction.

Runs as the transaction's last validator: every check has passed, nothing is durable or visible yet.

Promises: an abort that says "nothing was changed" is raised only when the log has not taken the change and
never will; when that is not known the abort says "not confirmed"; after "accepted" the change stands,
whatever happens to this transaction. An empty change appends nothing.
Does not: run checks, or finish what was accepted when this host fails afterwards (hgext.transactions).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mercurial.node import hex as to_hex

from hgfleet.adapters.agent_answers import AcceptedMessage, AppendRequest
from hgfleet.errors import NOT_CONFIRMED, FleetError, InDoubtError
from hgfleet.hgext import binding, capture, fingerprint, identity, session_context, steps
from hgfleet.hgext.binding import Binding
from hgfleet.hgext.capture import Change
from hgfleet.hgext.identity import Identity
from hgfleet.hgext.pushlog import Push
from hgfleet.hgext.refusals import NotConfirmedAbort, hint_of, nothing_changed, reason_of
from hgfleet.hgext.seqfile import SeqState
from hgfleet.hgext.spool import Spool
from hgfleet.model.ids import Epoch, PushId
from hgfleet.model.message import Json, Kind, PayloadRef
from hgfleet.model.payload import PastPush
from hgfleet.model.state import Fingerprint

SAID_FROM_BYTES = 5_000_000
VALIDATOR = b"zzzz-hgfleet-append"  # after 001-userhooks and every other one


@dataclass(frozen=True, slots=True)
class Base:
    """What a change is made on: the copy's state, and the epoch under which the log takes changes of it."""

    state: SeqState
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change ready to be handed over, and what it leaves when it is accepted."""

    request: AppendRequest
    after: Fingerprint
    rows: list[Push]  # without seq; without date where it is the message's
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that the log has taken."""

    message: AcceptedMessage
    push_id: PushId | None  # None: it added no changesets
    nodes: tuple[str, ...]  # the added changesets, in revision order

    @property
    def wording(self) -> bytes:
        """What the pusher is told when this host fails to complete it."""
        what = f" as push {self.push_id}" if self.push_id is not None else ""
        return f"accepted{what}; this host will complete it".encode()


def append(repo: Any, tr: Any, base: Base, heads_before: frozenset[int]) -> Prepared | None:
    """Append what the transaction changed, noting the outcome in `tr.hgfleet_accepted`; None: it changed
    nothing.

    Raises Abort.
    """
    bound = binding.of(repo)
    change = capture.capture(repo, tr)
    if change.is_empty:
        return None
    spool = Spool(_spool_directory(bound), bound.options.inline_limit_bytes)
    try:
        prepared = _prepare(repo, tr, base, heads_before, change, spool)
        _check_rights()
        message = _hand_over(bound, prepared.request)
    finally:
        spool.discard()
    push_id = prepared.rows[-1].push_id if prepared.rows else None
    tr.hgfleet_accepted = bound.accepted = Accepted(message, push_id, prepared.nodes)
    bound.faults.reach("push-after-append")
    return prepared


def commit_accepted(repo: Any, tr: Any, base: Base, prepared: Prepared, message: AcceptedMessage) -> None:
    """Put the pushlog's rows and the seq file of the accepted message into the transaction."""
    for row in prepared.rows:
        steps.add_push(repo, tr, replace(row, seq=message.seq, at=row.at or message.at))
    state = base.state.advanced(
        seq=message.seq, digest=message.digest, position=message.position, fingerprint=prepared.after
    )
    steps.commit_state(tr, state)


def _spool_directory(bound: Binding) -> Path:
    return Path(bound.options.spool_directory or bound.root / ".hg" / "hgfleet-spool")


def _prepare(
    repo: Any, tr: Any, base: Base, heads_before: frozenset[int], change: Change, spool: Spool
) -> Prepared:
    """Write the payload and put the request together; nothing is handed over yet."""
    bound = binding.of(repo)
    try:
        capture.write_payload(repo, change, spool)
        payload = spool.finish()
        if spool.path is not None:
            _say_uploading(repo, payload.size_bytes)
            bound.agent.blob_put(spool.path, payload.sha256, payload.size_bytes)
        bound.faults.reach("push-before-append")
    except OSError as exc:
        raise nothing_changed(f"the change could not be written down: {exc.strerror or exc}") from exc
    except FleetError as exc:
        raise nothing_changed(reason_of(exc), hint_of(exc)) from exc
    who = identity.current(repo.ui, bound.options.host)
    rows = _rows(repo, tr, change, who)
    after = fingerprint.take(repo, steps.pushes_after(repo, tr) + len(rows), tr)
    body: dict[str, Json] = {
        "pusher": who.pusher,
        "push_id": rows[-1].push_id if rows else None,
        "pushes": len(rows),
        "fingerprint": after.to_json(),
        **capture.describe_changesets(repo, change, heads_before),
    }
    return Prepared(_request(base, who, body, payload, spool.inline), after, rows, _nodes(repo, change))


def _check_rights() -> None:
    """Refuse what may not be written any more: an upload takes long enough for rights to change."""
    try:
        session_context.check_before_append()
    except FleetError as exc:
        raise nothing_changed(reason_of(exc), hint_of(exc)) from exc


def _say_uploading(repo: Any, size_bytes: int) -> None:
    """Tell the pusher why it takes a while, where it does."""
    if size_bytes >= SAID_FROM_BYTES:
        repo.ui.warn(b"uploading %d MB to the blob store\n" % (size_bytes // 1_000_000))


def _rows(repo: Any, tr: Any, change: Change, who: Identity) -> list[Push]:
    """Return the pushlog's new rows: one, or those that the changesets came with; none without changesets."""
    revs = range(change.first_rev, change.end_rev)
    if not revs:
        return []
    now = PastPush(len(revs), 0.0, who.pusher)
    rows = steps.rows_of(steps.next_push_id(repo, tr), revs, now, change.pushes)
    if rows is None:
        raise nothing_changed("the pushes taken over are not those of the changesets")
    return rows


def _nodes(repo: Any, change: Change) -> tuple[str, ...]:
    changelog = repo.unfiltered().changelog
    return tuple(to_hex(changelog.node(rev)).decode() for rev in range(change.first_rev, change.end_rev))


def _request(
    base: Base, who: Identity, body: dict[str, Json], payload: PayloadRef, inline: bytes
) -> AppendRequest:
    return AppendRequest(
        repository=base.state.repository,
        base_seq=base.state.seq,
        base_digest=base.state.digest,
        epoch=base.epoch,
        kind=Kind.PUSH,
        body=body,
        identity=who.name,
        trace=who.trace or uuid.uuid4().hex,
        payload=payload,
        inline=inline,
    )


def _hand_over(bound: Binding, request: AppendRequest) -> AcceptedMessage:
    deadline = bound.options.append_deadline_seconds
    try:
        with session_context.append_deadline(deadline + session_context.GRACE_SECONDS):
            return bound.agent.append(request, deadline, lambda: bound.faults.reach("push-handed-over"))
    except (InDoubtError, KeyboardInterrupt, OSError) as exc:
        raise NotConfirmedAbort(NOT_CONFIRMED.encode()) from exc
    except FleetError as exc:
        raise nothing_changed(reason_of(exc), hint_of(exc)) from exc
