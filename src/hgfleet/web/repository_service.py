"""Answers a request about one repository: from the cache, or by hgweb, with a second try where that helps.

Promises: a write is refused before its data is read; what hgweb cannot use of a client's arguments is
answered 400 or 404; a repository object that no longer fits its files is replaced once, then it is 503.
Does not: find repositories by path (web.application).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from mercurial import error

from hgfleet.adapters.location_files import Locations
from hgfleet.errors import RejectedError, TransientError
from hgfleet.runtime import clock
from hgfleet.web import arguments, clone_bundles
from hgfleet.web.answer_cache import AnswerCache, CachedAnswer, Flights
from hgfleet.web.answers import Answer, StartResponse, secured
from hgfleet.web.catalogue import Served
from hgfleet.web.clone_bundles import CloneBundles
from hgfleet.web.clone_counting import CloneCounter, parse_full_clone
from hgfleet.web.exchange import Exchange
from hgfleet.web.full_clones import CloneLane, ClonePlaces
from hgfleet.web.options import SiteOptions
from hgfleet.web.repositories import Found, Repositories
from hgfleet.web.repository_app import ARGUMENT_FAULTS, OutdatedError
from hgfleet.web.requests import Request, read_body

_ATTEMPTS = 2
_PAUSE_SECONDS = 0.02
_FOLLOWING_SECONDS = 20.0  # how long a request waits for another that asks the same
_SKEW_SECONDS = 0.25  # mirrors expose a push within this time of each other
_LOOK_SECONDS = 0.01
_EXPOSURES = 10  # a request meets at most so many new exposures before it gives up
_UNKNOWN = (error.LookupError, error.RepoLookupError, error.WdirUnsupported)
_MISFITS = (error.StorageError, error.RepoError, OSError)  # the files are not what they were when opened
_NONCE = re.compile(r"'nonce-([A-Za-z0-9_=-]+)'")

Note = Callable[..., None]


class RepositoryService:
    """What the application does with a request once its repository is known."""

    def __init__(self, site: SiteOptions, repositories: Repositories) -> None:
        self._site = site
        self._repositories = repositories
        self._cache = AnswerCache(site.cached_answers_bytes)
        self._flights = Flights()
        self._lane = CloneLane(site.clone_lane) if site.clone_lane is not None else None
        self._places = ClonePlaces(site.clone_places)
        self._bundles = CloneBundles(Locations(site.locations), CloneCounter(site.demand))

    def answer(
        self, served: Served, request: Request, start: StartResponse, note: Note
    ) -> Answer | Iterable[bytes]:
        """Return the body, its head being sent, or an answer to send; RejectedError, TransientError."""
        self._check_may(served, request)
        body = read_body(request.environ)
        clone = parse_full_clone(request, body)
        for _ in range(_EXPOSURES):
            found = self._open_seen(served, request)
            note(seq=found.key.seq)
            if request.command in clone_bundles.COMMANDS:
                return self._bundles.answer(found, request)
            try:
                if clone is None:
                    return self._answer_at(found, request, start, body, note)
                answered = self._answer_clone(found, request, start, body, note)
            except OutdatedError:
                continue
            return self._bundles.count(clone, found, request, answered)
        raise TransientError("web.busy", "the repository changes faster than it can be opened")

    def _answer_clone(
        self, found: Found, request: Request, start: StartResponse, body: bytes, note: Note
    ) -> Answer | Iterable[bytes]:
        """Answer a full clone: what is not in the cache is made elsewhere, as far as there is a place."""
        lane = self._lane
        if lane is None or self._cache.get((found.key, *request.question(body))) is not None:
            return self._answer_at(found, request, start, body, note)
        return self._places.run(lambda: self._answer_at(found, request, start, body, note, lane))

    def _answer_at(
        self,
        found: Found,
        request: Request,
        start: StartResponse,
        body: bytes,
        note: Note,
        lane: CloneLane | None = None,
    ) -> Answer | Iterable[bytes]:
        """Answer from the cache, or work it out; OutdatedError when a later view is exposed already."""
        question = (found.key, *request.question(body))
        cached = self._cache.get(question)
        end = self._flights.join(question) if cached is None else None
        if end is not None:
            end.wait(_FOLLOWING_SECONDS)
            cached = self._cache.get(question)
        if cached is not None:
            note(is_cached=True)
            return _reply(cached)
        try:
            return self._work_out(found, request, start, question, lane)
        finally:
            if end is None:
                self._flights.land(question)

    def _check_may(self, served: Served, request: Request) -> None:
        if arguments.is_write(request.command):
            site = self._site.ssh_url
            where = f"push to {site}/{served.path}" if site else "push over SSH"
            raise RejectedError("web.read-only", f"this mirror is read-only: {where}", status=403)
        if request.method == "POST" and not arguments.is_wire_command(request.command):
            raise RejectedError("web.bad-method", "only wire commands are posted", status=405)

    def _open_seen(self, served: Served, request: Request) -> Found:
        """Return what is not behind anything that was seen of the repository elsewhere (R2)."""
        ends_at = clock.monotonic() + _SKEW_SECONDS
        while True:
            found = self._open(served)
            if not request.seen.is_beyond(served.repository, found.key.seq):
                return found
            if clock.monotonic() > ends_at:
                raise RejectedError("web.behind", "this mirror is behind what was already shown", status=502)
            clock.sleep(_LOOK_SECONDS)

    def _open(self, served: Served) -> Found:
        found = self._repositories.open(served)
        if found is None:
            raise RejectedError("web.not-exposed", "nothing of this repository is exposed yet", status=502)
        return found

    def _work_out(
        self,
        found: Found,
        request: Request,
        start: StartResponse,
        question: object,
        lane: CloneLane | None,
    ) -> Answer | Iterable[bytes]:
        shown = [("X-HgFleet-Seq", str(found.key.seq)), ("X-HgFleet-Repository", found.key.repository)]
        exchange = Exchange(start, [] if lane is not None else shown)  # the lane says itself what it shows
        first, rest = self._run(found, request, exchange, lane)
        if exchange.is_sent:
            return (first,)
        if rest is not None:
            return exchange.stream(first, rest)
        answer = _whole(exchange, first)
        if answer.status.startswith("200") and set(shown) <= set(answer.headers):
            self._cache.put(question, answer)
        return _reply(answer)

    def _run(
        self, found: Found, request: Request, exchange: Exchange, lane: CloneLane | None
    ) -> tuple[bytes, Any]:
        application = lane or found.app
        for attempt in range(_ATTEMPTS):
            if attempt:
                found.app.forget()
                clock.sleep(_PAUSE_SECONDS)
            try:
                request.environ["wsgi.input"].seek(0)  # read_body has put it there
                first, rest = exchange.run(application, request.inside(found.key.path))
            except _UNKNOWN as fault:
                raise RejectedError("web.unknown", "no such changeset or file", status=404) from fault
            except _MISFITS:
                if exchange.is_sent:
                    raise
                continue
            except (error.Abort, *ARGUMENT_FAULTS) as fault:
                raise _refused(fault) from fault
            if not exchange.status.startswith("500"):
                return first, rest
        raise TransientError("web.changing", "the repository is changing, try again")


def _refused(fault: BaseException) -> RejectedError:
    if isinstance(fault, RejectedError):
        return fault
    return RejectedError("web.bad-argument", "bad arguments", fault=repr(fault)[:200])


def _whole(exchange: Exchange, body: bytes) -> CachedAnswer:
    headers = [(name, value) for name, value in exchange.headers if name.lower() != "content-length"]
    policy = next((value for name, value in headers if name.lower() == "content-security-policy"), "")
    nonce = _NONCE.search(policy)
    return CachedAnswer(exchange.status, [*headers, *exchange.added], body, nonce[1] if nonce else "")


def _reply(cached: CachedAnswer) -> Answer:
    answer = cached.renewed()
    return Answer(answer.status, answer.body, secured(list(answer.headers)))
