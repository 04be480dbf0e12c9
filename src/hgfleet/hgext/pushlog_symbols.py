"""The pushlog in revsets and templates, and in what hgweb says of a changeset.

    pushhead()  pushid(id)  pushuser(name)  pushdate(interval)  pushrev(set)
    {pushid}  {pushuser}  {pushdate}

Promises: a changeset that no push brought has none of these, in JSON null; revsets are for whoever runs hg on
the host: clients of hgweb cannot evaluate any (hgext.exposed).
Does not: answer the pushlog's own pages (hgext.pushlog_pages).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mercurial import extensions, registrar, revset, revsetlang, smartset, tables, templateutil
from mercurial.hgweb import hgweb_mod_inner, webutil
from mercurial.i18n import _
from mercurial.utils import dateutil, stringutil

from hgfleet.hgext.pushlog import Push
from hgfleet.hgext.pushlog_answers import open_pushlog

_ENTRIES = (b"changelistentry", b"graphentry", b"changeset", b"filerevision")
_PHASE = b'"phase": {phase|json}'
_PUSH = b'"pushid": {pushid|json}, "pushuser": {pushuser|json}, "pushdate": {pushdate|json}'

revsetpredicate = registrar.revsetpredicate()
templatekeyword = registrar.templatekeyword()


def register(ui: Any) -> None:
    """Make them known to Mercurial. Once per process."""
    tables.load_revset_predicates(ui, "hgfleet", revsetpredicate)
    tables.load_template_keywords(ui, "hgfleet", templatekeyword)
    extensions.wrapfunction(webutil, "commonentry", _commonentry)
    extensions.wrapfunction(hgweb_mod_inner.requestcontext, "templater", _templater)


def push_of(repo: Any, rev: int) -> Push | None:
    """Return the push that brought a revision."""
    with open_pushlog(repo) as log:
        return log.push_of_rev(rev)


def _commonentry(orig: Any, repo: Any, ctx: Any) -> Any:
    return orig(repo, ctx) | _fields(push_of(repo, ctx.rev()))


def _fields(push: Push | None) -> dict[bytes, Any]:
    if push is None:
        return {b"pushid": None, b"pushuser": None, b"pushdate": None}
    return {b"pushid": push.push_id, b"pushuser": push.pusher.encode(), b"pushdate": [int(push.at), 0]}


def _templater(orig: Any, self: Any, req: Any) -> Any:
    """Add the push to every changeset of hgweb's JSON."""
    made = orig(self, req)
    if req.qsparams.get(b"style") == b"json":
        for name in _ENTRIES:
            made.cache[name] = made.cache[name].replace(_PHASE, b"%s, %s" % (_PHASE, _PUSH))
    return made


@templatekeyword(b"pushid", requires={b"ctx", b"repo"})
def showpushid(context: Any, mapping: Any) -> Any:
    """Show the id of the push that brought the changeset."""
    return _fields(_push_in(context, mapping))[b"pushid"]


@templatekeyword(b"pushuser", requires={b"ctx", b"repo"})
def showpushuser(context: Any, mapping: Any) -> Any:
    """Show who pushed the changeset."""
    return _fields(_push_in(context, mapping))[b"pushuser"]


@templatekeyword(b"pushdate", requires={b"ctx", b"repo"})
def showpushdate(context: Any, mapping: Any) -> Any:
    """Show when the changeset was pushed."""
    push = _push_in(context, mapping)
    return None if push is None else templateutil.date((int(push.at), 0))


def _push_in(context: Any, mapping: Any) -> Push | None:
    return push_of(context.resource(mapping, b"repo"), context.resource(mapping, b"ctx").rev())


@revsetpredicate(b"pushhead()", weight=10)
def pushhead(repo: Any, subset: Any, x: Any) -> Any:
    """Select the last changeset of each push."""
    revset.getargs(x, 0, 0, _(b"pushhead takes no arguments"))
    return subset & smartset.baseset([push.end_rev - 1 for push in _pushes(repo)])


@revsetpredicate(b"pushid(id)", weight=10)
def pushid(repo: Any, subset: Any, x: Any) -> Any:
    """Select the changesets of one push."""
    wanted = revsetlang.getinteger(x, _(b"pushid takes a number"))
    with open_pushlog(repo) as log:
        push = log.push(wanted)
    return subset & smartset.baseset(_revs([push] if push is not None else []))


@revsetpredicate(b"pushuser(name)", weight=10)
def pushuser(repo: Any, subset: Any, x: Any) -> Any:
    """Select the changesets that an account has pushed."""
    matches = stringutil.stringmatcher(revsetlang.getstring(x, _(b"pushuser takes a string")))[2]
    return subset & smartset.baseset(_revs(push for push in _pushes(repo) if matches(push.pusher.encode())))


@revsetpredicate(b"pushdate(interval)", weight=10)
def pushdate(repo: Any, subset: Any, x: Any) -> Any:
    """Select the changesets pushed within the interval, see :hg:`help dates`."""
    matches = dateutil.matchdate(revsetlang.getstring(x, _(b"pushdate takes a string")))
    return subset & smartset.baseset(_revs(push for push in _pushes(repo) if matches(push.at)))


@revsetpredicate(b"pushrev(set)", weight=10)
def pushrev(repo: Any, subset: Any, x: Any) -> Any:
    """Select all changesets of the pushes that brought those of the set."""
    with open_pushlog(repo) as log:
        found = {log.push_of_rev(rev) for rev in revset.getset(repo, smartset.fullreposet(repo), x)}
    return subset & smartset.baseset(_revs(push for push in found if push is not None))


def _pushes(repo: Any) -> Iterator[Push]:
    with open_pushlog(repo) as log:
        yield from log.range(1, log.last_id)


def _revs(pushes: Iterable[Push]) -> list[int]:
    return sorted(rev for push in pushes for rev in range(push.first_rev, push.end_rev))
