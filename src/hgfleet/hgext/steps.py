"""What a message leaves in the transaction besides Mercurial's own changes: the pushlog row and the seq file.

The same for the change that is being made here and for one that is read from the log.

Promises: row and seq file appear with the changesets or not at all.
Does not: append to the log or apply payloads.
"""

from __future__ import annotations

from typing import Any

from hgfleet.hgext import binding, pushlog
from hgfleet.hgext.pushlog import Push
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.ids import PushId, Seq
from hgfleet.model.payload import PastPush

_FINALIZER = b"000-a-hgfleet-pushlog"  # before 000-cl-*: a visible changeset has its row


def pushes_after(repo: Any, tr: Any) -> int:
    """Return the highest PushId once the transaction is closed, as far as it has rows now."""
    return pushlog.count_pushes(binding.of(repo).store) + len(_rows(tr))


def add_push(repo: Any, tr: Any, push: Push) -> None:
    """Have the transaction append a row; rows must come in the order of their ids."""
    rows = _rows(tr)
    if not rows:
        tr.hgfleet_pushes = rows
        tr.addfinalize(_FINALIZER, lambda tr2: _flush(repo, tr2))
    rows.append(push)


def take_over_pushes(tr: Any, pushes: tuple[PastPush, ...]) -> None:
    """Let the changesets that the transaction adds keep the pushes they came by elsewhere."""
    tr.hgfleet_past_pushes = pushes


def past_pushes(tr: Any) -> tuple[PastPush, ...]:
    """Return what take_over_pushes said."""
    return getattr(tr, "hgfleet_past_pushes", ())


def rows_of(first_id: PushId, revs: range, now: PastPush, past: tuple[PastPush, ...]) -> list[Push] | None:
    """Return the rows, without seq, of added revisions: one push `now`, or the past ones, which must cover
    them.

    None when they do not.
    """
    rows: list[Push] = []
    first_rev = revs.start
    for number, push in enumerate(past or (now,)):
        end_rev = first_rev + push.count
        rows.append(Push(PushId(first_id + number), Seq(0), push.at, first_rev, end_rev, push.pusher))
        first_rev = end_rev
    return rows if first_rev == revs.stop else None


def next_push_id(repo: Any, tr: Any) -> PushId:
    """Return the id that the next row will have."""
    return PushId(pushes_after(repo, tr) + 1)


def commit_state(tr: Any, state: SeqState) -> None:
    """Have the transaction write the seq file when everything else is written; the last state counts."""
    tr.hgfleet_state = state


def _rows(tr: Any) -> list[Push]:
    return getattr(tr, "hgfleet_pushes", [])


def _flush(repo: Any, tr: Any) -> None:
    records, names = pushlog.format_rows(binding.of(repo).store, _rows(tr))
    for name, data in ((pushlog.PUSHERS_NAME, names), (pushlog.NAME, records)):
        if not data:
            continue
        with repo.svfs(name.encode(), b"ab") as file:
            tr.add(name.encode(), file.tell())
            file.write(data)
