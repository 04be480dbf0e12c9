"""Answers a pushlog query for one repository: which pushes fit, and what each says about its changesets.

Promises: only exposed pushes, in the order of their ids, and nothing of secret changesets; one answer holds a
bounded number of pushes and of changesets, and says after which id the next one goes on. A client's symbol is
looked up as hash prefix, tag, bookmark, branch or number, nothing else.
Does not: parse parameters (model.pushlog_query) or know HTTP (hgext.pushlog_pages).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mercurial import error, phases, scmutil

from hgfleet.errors import RejectedError
from hgfleet.hgext.pushlog import Push, Pushlog
from hgfleet.model.ids import PushId
from hgfleet.model.pushlog_query import MAX_PUSHES, PAGE_PUSHES, PushQuery, narrowed

# What one answer may hold; a single push is given up to here, the heads' end of it.
MAX_CHANGESETS = 20_000
MAX_FULL_CHANGESETS = 2_000
MAX_FILES = 20_000  # of all changesets of one push
_MAX_SCANNED = 200_000
_NODE = re.compile(r"[0-9a-f]{40}")
# Dates follow the accepting host's clock and may step back by its corrections.
_CLOCK_STEP_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ShownPush:
    """A push with the revisions of it that a reader gets to see."""

    push: Push
    revs: list[int]
    hidden_revs: list[int]  # obsolete by now


@dataclass(frozen=True, slots=True)
class Answer:
    """The pushes, lowest id first."""

    pushes: list[ShownPush]
    last_id: PushId  # of the repository
    next_after: PushId | None  # ask again with startID of this; None: that was all


def open_pushlog(repo: Any) -> Pushlog:
    """Open the repository's pushlog as far as it is exposed; the caller closes it."""
    view = getattr(repo.unfiltered(), "hgfleet_view", None)
    return Pushlog(repo.spath.decode(), None if view is None else view.pushlog_bytes)


def answer(repo: Any, query: PushQuery) -> Answer:
    """Work out the answer; raise RejectedError `pushlog.unknown` (404) for what names nothing."""
    with open_pushlog(repo) as log:
        if query.is_open:
            query = replace(query, after_id=PushId(max(0, log.last_id - PAGE_PUSHES)))
        return _gathered(repo, log, _bounded(repo, log, query))


def page(repo: Any, number: int) -> list[ShownPush]:
    """Return one page of the newest pushes, the newest first."""
    with open_pushlog(repo) as log:
        last = log.last_id - (number - 1) * PAGE_PUSHES
        pushes = list(log.range(last - PAGE_PUSHES + 1, last))
    return [_shown(repo, push, None) for push in reversed(pushes)]


def resolve(repo: Any, symbol: str) -> int:
    """Return the revision that a client's symbol names; a hidden changeset only by its whole id."""
    name = symbol.encode("utf-8", "surrogateescape")
    if _NODE.fullmatch(symbol):
        unfiltered = repo.unfiltered()
        rev = unfiltered.changelog.index.get_rev(bytes.fromhex(symbol))
        if rev is not None and unfiltered[rev].phase() < phases.secret:
            return int(rev)
    with contextlib.suppress(error.RepoLookupError, error.LookupError, ValueError, OverflowError):
        return int(scmutil.revsymbol(repo, name).rev())
    raise RejectedError("pushlog.unknown", f"unknown changeset: {symbol[:60]!a}", status=404)


def _bounded(repo: Any, log: Pushlog, query: PushQuery) -> PushQuery:
    """Take the bounds that changesets stand for into the ids."""
    after = _id_of(repo, log, query.from_change) if query.from_change is not None else None
    through = _id_of(repo, log, query.to_change) if query.to_change is not None else None
    if query.branch is not None and query.branch.encode() not in repo.branchmap():
        raise RejectedError("pushlog.unknown", f"unknown branch: {query.branch[:60]!a}", status=404)
    return narrowed(query, after=after, through=through)


def _id_of(repo: Any, log: Pushlog, symbol: str) -> PushId:
    push = log.push_of_rev(resolve(repo, symbol))
    if push is None:
        raise RejectedError("pushlog.unknown", f"no push brought {symbol[:60]!a}", status=404)
    return push.push_id


def _gathered(repo: Any, log: Pushlog, query: PushQuery) -> Answer:
    found: list[ShownPush] = []
    total = 0
    limit = MAX_FULL_CHANGESETS if query.is_full else MAX_CHANGESETS
    for scanned, push in enumerate(_candidates(repo, log, query), 1):
        if _fits(push, query):
            shown = _shown(repo, push, query.branch)
            if query.branch is None or shown.revs or shown.hidden_revs:
                found.append(shown)
                total += 1 if query.tips_only else len(shown.revs) + len(shown.hidden_revs)
        is_enough = len(found) >= MAX_PUSHES or total >= limit or scanned >= _MAX_SCANNED
        if is_enough and push.push_id < _last_candidate(log, query):
            return Answer(found, log.last_id, push.push_id)
    return Answer(found, log.last_id, None)


def _last_candidate(log: Pushlog, query: PushQuery) -> int:
    return log.last_id if query.through_id is None else min(log.last_id, query.through_id)


def _candidates(repo: Any, log: Pushlog, query: PushQuery) -> Iterator[Push]:
    first, last = (query.after_id or 0) + 1, _last_candidate(log, query)
    if query.changesets:
        ids = sorted({_id_of(repo, log, symbol) for symbol in query.changesets})
        yield from (push for push in map(log.push, ids) if push is not None and first <= push.push_id <= last)
        return
    if query.after_date is not None:
        first = max(first, log.first_id_at_or_after(query.after_date - _CLOCK_STEP_SECONDS))
    if query.before_date is not None:
        last = min(last, log.first_id_at_or_after(query.before_date + _CLOCK_STEP_SECONDS))
    yield from log.range(first, last)


def _fits(push: Push, query: PushQuery) -> bool:
    at = int(push.at)  # what clients are shown, and may send back
    return (
        (not query.users or push.pusher in query.users)
        and (query.after_date is None or at > query.after_date)
        and (query.before_date is None or at < query.before_date)
    )


def _shown(repo: Any, push: Push, branch: str | None) -> ShownPush:
    revs: list[int] = []
    hidden: list[int] = []
    filtered = repo.changelog.filteredrevs
    unfiltered = repo.unfiltered()
    branch_of = unfiltered.revbranchcache().branchinfo
    for rev in range(push.first_rev, push.end_rev):
        if branch is not None and branch_of(rev)[0] != branch.encode():
            continue
        if rev not in filtered:
            revs.append(rev)
        elif unfiltered[rev].phase() < phases.secret:
            hidden.append(rev)
    return ShownPush(push, revs, hidden)


def to_json(repo: Any, shown: ShownPush, query: PushQuery) -> dict[str, Any]:
    """Return a push as json-pushes has it."""
    revs = shown.revs[-1:] if query.tips_only else shown.revs
    fields: dict[str, Any] = {
        "changesets": _changesets(repo, revs, query),
        "date": int(shown.push.at),
        "user": shown.push.pusher,
    }
    if shown.hidden_revs and not query.tips_only:
        fields["obsoletechangesets"] = _changesets(repo.unfiltered(), shown.hidden_revs, query)
    if len(fields["changesets"]) < len(revs):
        fields["changesetcount"] = len(revs)
    return fields


def _changesets(repo: Any, revs: list[int], query: PushQuery) -> list[Any]:
    if not query.is_full:
        node = repo.changelog.node
        return [node(rev).hex() for rev in revs[-MAX_CHANGESETS:]]
    return _full_changesets(repo, revs[-MAX_FULL_CHANGESETS:])


def _full_changesets(repo: Any, revs: list[int]) -> list[dict[str, Any]]:
    """Return what is known of each, the last ones if all of it were too much."""
    full: list[dict[str, Any]] = []
    files = 0
    for rev in reversed(revs):
        full.append(_full(repo[rev]))
        files += len(full[-1]["files"])
        if files > MAX_FILES:
            break
    return full[::-1]


def _full(ctx: Any) -> dict[str, Any]:
    return {
        "node": ctx.hex().decode(),
        "author": _text(ctx.user()),
        "desc": _text(ctx.description()),
        "branch": _text(ctx.branch()),
        "parents": [parent.hex().decode() for parent in ctx.parents()],
        "tags": [_text(tag) for tag in ctx.tags()],
        "files": [_text(name) for name in ctx.files()],
    }


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
