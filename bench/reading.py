"""Measures what a mirror answers per second, with plain Mercurial under the same web server beside it.

Both sides have gunicorn with TLS, the same workers and threads, and the same repository; the load comes from
a few connections that stay open, on the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

from bench.cpu import cpu_seconds, with_descendants
from bench.http_load import Connection, Request, run_load
from bench.material import Line, build_line
from bench.plain_servers import PlainServer, plain_server
from bench.series import Goal, Row, Series
from bench.setting import Setting
from tests.support.fleet import Fleet

_CHANGESETS = 1000
_NAME = "read"
_BUNDLES = 20  # different pulls of one changeset that clients repeat
_LATEST = 3
_COLD = 8  # different pages per round, each asked for once
_CLIENT = {"User-Agent": "mercurial/proto-1.0", "Accept": "application/mercurial-0.1"}
_CAPABILITIES = quote("HG20,bundle2=" + quote("HG20\nchangegroup=01,02,03\nphases=heads\nbookmarks"), safe="")


@dataclass(frozen=True, slots=True)
class Question:
    """Something that clients ask again and again."""

    what: str
    ours: Callable[[str], Sequence[Request]]  # of a repository's URL
    plain: Callable[[str], Sequence[Request]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two servers that are compared."""

    url: str
    pids: Callable[[], list[int]]


def measure_reading(setting: Setting) -> Iterator[Row]:
    """Yield requests per second and CPU per request of wire commands and pages."""
    with setting.fleet(1) as fleet, ExitStack() as stack:
        line = build_line(fleet.client(), setting.directory / "line", _CHANGESETS)
        repository = setting.directory / "served" / _NAME
        repository.parent.mkdir()
        line.copied(repository)
        fleet.client().run("-R", repository, "phase", "-q", "-p", "-r", "all()").ok()
        fleet.create(_NAME)
        fleet.client().run("-R", line.directory, "push", "-q", fleet.ssh_url(_NAME)).ok()
        ours = Side(fleet.https_url(_NAME), lambda: _web_pids(fleet))
        several = _side(stack.enter_context(plain_server(fleet, repository.parent, "hgwebdir")), _NAME)
        single = _side(stack.enter_context(plain_server(fleet, repository.parent, "hgweb")), "")
        load = _Load(setting, fleet.ca_file)
        for question in _wire_questions(line):
            yield load.compare(question, ours, several, "hgwebdir", Goal(10, "×", at_most=False))
            yield load.compare(question, ours, single, "hgweb, one repository kept open", None)
        for question in _page_questions(line):
            yield load.compare(question, ours, several, "hgwebdir", Goal(10, "×", at_most=False))
        for question in _cold_questions(line):
            yield load.compare_cold(question, ours, several)


def _side(server: PlainServer, name: str) -> Side:
    return Side(f"{server.url}{name}", lambda: with_descendants(server.pid))


def _web_pids(fleet: Fleet) -> list[int]:
    return [pid for child in fleet.children("web") for pid in with_descendants(child.pid)]


# ---- questions


def _wire_questions(line: Line) -> Iterator[Question]:
    yield _same("capabilities", lambda url: [_wire(url, "capabilities")])
    commands = f"heads ;known nodes={line.nodes[-1]}"
    yield _same("batch of heads and known", lambda url: [_wire(url, "batch", cmds=commands)])
    yield _same("getbundle of one changeset", lambda url: pulls_of_one_changeset(line, url))
    yield Question(
        "json-pushes",
        lambda url: [Request(f"{url}/json-pushes?version=2&tipsonly=1")],
        lambda url: [Request(f"{url}/json-log?revcount=10")],
        note="plain Mercurial has no pushlog; json-log of ten changesets stands beside it",
    )


def _page_questions(line: Line) -> Iterator[Question]:
    latest = line.nodes[-_LATEST:]
    yield _same("page shortlog, warm", lambda url: [Request(f"{url}/shortlog")])
    yield _same("page changeset, warm", lambda url: [Request(f"{url}/rev/{node}") for node in latest])
    yield _same("page file, warm", lambda url: [Request(f"{url}/file/{node}/mf") for node in latest])


def _cold_questions(line: Line) -> Iterator[Question]:
    for what, page in (("shortlog", "shortlog/{}"), ("changeset", "rev/{}"), ("file", "file/{}/mf")):
        yield _same(f"page {what}, cold", _each_node(page, line.nodes[:-_LATEST]))


def _each_node(page: str, nodes: Sequence[str]) -> Callable[[str], Sequence[Request]]:
    return lambda url: [Request(f"{url}/{page.format(node)}") for node in reversed(nodes)]


def _same(what: str, requests: Callable[[str], Sequence[Request]]) -> Question:
    return Question(what, requests, requests)


def _wire(url: str, command: str, **arguments: str) -> Request:
    encoded = "&".join(f"{name}={quote(value, safe='%')}" for name, value in sorted(arguments.items()))
    headers = _CLIENT | ({"X-HgArg-1": encoded} if encoded else {})
    return Request(f"{url}?cmd={command}", headers)


def pulls_of_one_changeset(line: Line, url: str) -> list[Request]:
    """Return the pulls of clients that lack one changeset each."""
    pairs = zip(line.nodes[-_BUNDLES - 1 : -1], line.nodes[-_BUNDLES:], strict=True)
    return [_getbundle(url, *pair) for pair in pairs]


def _getbundle(url: str, common: str, head: str) -> Request:
    wanted = {"cg": "1", "phases": "1", "bookmarks": "1", "common": common, "heads": head}
    return _wire(url, "getbundle", bundlecaps=_CAPABILITIES, **wanted)


# ---- load


@dataclass(frozen=True, slots=True)
class _Load:
    """How both sides are asked."""

    setting: Setting
    ca_file: str

    def compare(self, question: Question, ours: Side, plain: Side, beside: str, goal: Goal | None) -> Row:
        """Ask both sides the same in turns, again and again, and compare answers per second."""
        sides = ((ours, question.ours(ours.url)), (plain, question.plain(plain.url)))
        rates: list[list[float]] = [[], []]
        costs: list[list[float]] = [[], []]
        for _ in range(1 + self._rounds):
            for place, (side, requests) in enumerate(sides):
                rate, cost = self._ask(side, requests)
                rates[place].append(rate)
                costs[place].append(cost)
        return _rate_row(question, [values[1:] for values in rates], [v[1:] for v in costs], beside, goal)

    def compare_cold(self, question: Question, ours: Side, plain: Side) -> Row:
        """Ask both sides for pages that nobody has asked for yet."""
        sides = ((ours, question.ours(ours.url)), (plain, question.plain(plain.url)))
        clients = [Connection(side.url, self.ca_file) for side, _ in sides]
        rates: list[list[float]] = [[], []]
        costs: list[list[float]] = [[], []]
        for number in range(_COLD * self._rounds):
            for place, (side, requests) in enumerate(sides):
                clients[place].ask(_wire(side.url, "capabilities"))  # connected, the repository open
                rate, cost = _ask_once(side, clients[place], requests[number])
                rates[place].append(rate)
                costs[place].append(cost)
        for client in clients:
            client.close()
        return _rate_row(question, rates, costs, "hgwebdir", Goal(1, "×", at_most=False))

    @property
    def _rounds(self) -> int:
        return 1 if self.setting.is_quick else max(3, self.setting.runs // 3)

    def _ask(self, side: Side, requests: Sequence[Request]) -> tuple[float, float]:
        pids = side.pids()
        before = cpu_seconds(pids)
        load = run_load(requests, self.ca_file, seconds=0.2 if self.setting.is_quick else 0.8)
        return load.per_second, (cpu_seconds(pids) - before) / load.answers


def _ask_once(side: Side, client: Connection, request: Request) -> tuple[float, float]:
    pids = side.pids()
    before = cpu_seconds(pids)
    started_at = time.perf_counter()
    client.ask(request)
    took = time.perf_counter() - started_at
    return 1 / took, cpu_seconds(pids) - before


def _rate_row(
    question: Question, rates: list[list[float]], costs: list[list[float]], beside: str, goal: Goal | None
) -> Row:
    ours_cost, plain_cost = (Series("ms", tuple(values)).scaled(1000, "ms").median for values in costs)
    cost = f"server CPU per request {ours_cost:.2f} ms, beside it {plain_cost:.2f} ms"
    return Row(
        "read",
        question.what,
        Series("/s", tuple(rates[0])),
        Series("/s", tuple(rates[1])),
        beside,
        goal,
        note="; ".join(filter(None, (cost, question.note))),
    )
