"""The WSGI application of a mirror's web workers: from a URL to a repository as it is exposed, or a clear no.

    /                       the repositories; /team/ those below it
    /<path>[/…][?cmd=…]     one repository: hgweb and the wire protocol
    /-/repositories.json    the repositories, for programs
    /-/livez, /-/readyz     health, for the load balancer
    /-/static/…             style sheets and scripts
    /-/bundles/, /-/bundles.json   what clone bundles there are, and how to use them
    /-/bundle-files/…       clone bundles that lie on this machine

Promises: reads need nothing but this host's files. Nothing that a client sends is answered with 500: what was
asked wrongly is told apart from what fails in here, and the latter is logged with an id that the client sees.
Writes are refused before their data is looked at. Each request leaves one log line.
Does not: listen (web.server) or expose anything (replication).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import structlog

from hgfleet.adapters.serving_file import read_serving
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.fleet_records import Stage
from hgfleet.runtime import clock
from hgfleet.web import bundle_files
from hgfleet.web.answers import Answer, StartResponse, marked_stale, refusal, text
from hgfleet.web.bundle_files import BundleFiles
from hgfleet.web.bundle_pages import BundlePages
from hgfleet.web.catalogue import Catalogue, Served
from hgfleet.web.index import Index, parse_listing
from hgfleet.web.options import SiteOptions
from hgfleet.web.repositories import Repositories
from hgfleet.web.repository_service import RepositoryService
from hgfleet.web.requests import Request, parse_networks, parse_request, read_to_end
from hgfleet.web.static import StaticFiles

_log = structlog.stdlib.get_logger("hgfleet.web")

_HEALTH = ("-/livez", "-/readyz")  # asked several times a second
_METHODS = ("GET", "HEAD", "POST")
_NOT_SERVING = {
    Stage.JOINING: "this mirror is joining the fleet and does not answer yet",
    Stage.DRAINING: "this mirror is leaving service",
}
_NOT_STARTED = "this mirror has not started yet"
_PARKED = "this repository is not available on this mirror at the moment"


class Application:
    """What gunicorn calls; any thread may."""

    def __init__(self, site: SiteOptions, ui: Any) -> None:
        self._site = site
        self._trusted = parse_networks(site.trusted_proxies)
        self._catalogue = Catalogue(site.catalogue)
        repositories = Repositories(site, ui)
        self._service = RepositoryService(site, repositories)
        self._index = Index(site, self._catalogue, repositories)
        self._bundle_pages = BundlePages(site, self._catalogue, repositories)
        self._static = StaticFiles()
        self._bundle_files = BundleFiles(dict(site.bundle_directories))

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """Answer one request and log it when the answer has ended."""
        request = parse_request(environ, self._trusted)
        line = _Line(request)

        def noting_start(status: str, headers: Any, failure: Any = None) -> Any:
            line.status = status
            write = start(status, headers, failure)
            return _discard if request.method == "HEAD" else write

        return line.follow(self._answer(request, noting_start, line))

    def _answer(self, request: Request, start: StartResponse, line: _Line) -> Iterable[bytes]:
        try:
            body = self._dispatch(request, start, line)
        except RejectedError as error:
            answer = refusal(error.status, error.message, is_person=request.is_person)
        except TransientError as error:
            line.note(fault=str(error))
            again = [("Retry-After", str(error.context.get("retry_after_seconds", 1)))]
            answer = refusal(503, error.message, is_person=request.is_person, headers=again)
        except Exception:
            fault = uuid.uuid4().hex[:12]
            _log.exception("request failed", fault_id=fault, path=request.path, query=request.query[:500])
            answer = refusal(500, f"internal error, id {fault}", is_person=request.is_person)
        else:
            if not isinstance(body, Answer):
                return () if request.method == "HEAD" else body
            answer = marked_stale(body) if request.is_last_resort else body
        sent = answer.send(start)
        if request.method == "POST" and not answer.status.startswith("200"):
            return read_to_end(request.environ, sent)
        return () if request.method == "HEAD" else sent

    def _dispatch(self, request: Request, start: StartResponse, line: _Line) -> Answer | Iterable[bytes]:
        if request.method not in _METHODS:
            return text(405, "only GET, HEAD and POST are answered", [("Allow", ", ".join(_METHODS))])
        if request.path.startswith("-/"):
            return self._own(request, start)
        self._check_serving(request)
        served = self._catalogue.find(request.path)
        if served is None:
            return self._list(request)
        line.note(repository=served.repository)
        self._check_available(served)
        return self._service.answer(served, request, start, line.note)

    def _own(self, request: Request, start: StartResponse) -> Answer | Iterable[bytes]:
        match request.path.removeprefix("-/"):
            case "livez":
                return text(200, "ok")
            case "readyz":
                serving = read_serving(self._site.serving)
                is_ready = serving is not None and serving.is_ready()
                return text(200, "ready") if is_ready else text(503, "not ready")
            case "repositories.json":
                self._check_serving(request)
                return self._index.as_json(parse_listing("", request.query))
            case "bundles.json" | "bundles" | "bundles/" as name:
                self._check_serving(request)
                return self._bundle_pages.answer(name)
            case other if other.startswith("static/"):
                return self._static.answer(other.removeprefix("static/"))
            case other if other.startswith(bundle_files.PREFIX):
                return self._bundle_files.answer(other.removeprefix(bundle_files.PREFIX), request, start)
            case _:
                return text(404, "no such page")

    def _list(self, request: Request) -> Answer:
        is_question = not request.command and request.method != "POST"
        page = self._index.as_page(parse_listing(request.path, request.query)) if is_question else None
        if page is None:
            return refusal(404, "no such repository", is_person=request.is_person)
        return page

    def _check_serving(self, request: Request) -> None:
        if self._site.is_lane:
            return
        serving = read_serving(self._site.serving)
        if serving is None or not serving.may_answer(is_last_resort=request.is_last_resort):
            message = _NOT_SERVING[serving.stage] if serving is not None else _NOT_STARTED
            raise RejectedError("web.not-serving", message, status=502)

    @staticmethod
    def _check_available(served: Served) -> None:
        if served.parked_reason is not None:
            raise RejectedError("web.parked", _PARKED, status=502)


def _discard(_data: bytes) -> None:
    """Stand for WSGI's write() where an answer has no body."""


class _Line:
    """The canonical log line of a request, gathered while it is answered."""

    def __init__(self, request: Request) -> None:
        self.status = ""
        self._request = request
        self._noted: dict[str, Any] = {}
        self._started = clock.monotonic()

    def note(self, **fields: Any) -> None:
        """Add to the line."""
        self._noted |= fields

    def follow(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the body and write the line, whether the client has stayed to the end or not."""
        sent = 0
        outcome = "cut off"
        try:
            for chunk in body:
                sent += len(chunk)
                yield chunk
            outcome = "answered"
        finally:
            if hasattr(body, "close"):
                body.close()
            self._write(outcome, sent)

    def _write(self, outcome: str, sent_bytes: int) -> None:
        _log.log(
            logging.DEBUG if self._request.path in _HEALTH else logging.INFO,
            "request",
            method=self._request.method,
            path=self._request.path[:500],
            command=self._request.command[:50].decode("ascii", "replace"),
            status=self.status[:3],
            outcome=outcome,
            sent_bytes=sent_bytes,
            duration_ms=round((clock.monotonic() - self._started) * 1000, 1),
            client=self._request.client,
            **self._noted,
        )
