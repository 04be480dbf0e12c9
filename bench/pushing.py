"""Measures `hg push` of one changeset, as a person sees it and as the server does.

hgfleet's push is durable in the log and waits until every mirror shows it; beside it plain
`hg serve --stdio` answers behind the same front, without checks, log or mirrors. Both clients have
byte-identical repositories and push the same changesets, one after the other and in turns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.fronts import Fronts
from bench.material import Line, build_line
from bench.series import Goal, Row, milliseconds
from bench.setting import Setting
from tests.support.clients import HgClient
from tests.support.fleet import Fleet

_FIRST = 200  # changesets that are there before anything is measured
_WARM_UP = 2
_PATH = "bench/pushed"
_PLAIN = "plain `hg serve --stdio`"


@dataclass(frozen=True, slots=True)
class Pusher:
    """One client and where it pushes to."""

    hg: HgClient
    line: Line
    url: str

    def push(self, number: int) -> float:
        """Push the changeset of that revision, and whatever is missing below it; return the seconds taken."""
        started_at = time.perf_counter()
        outcome = self.hg.run(
            "-R", self.line.directory, "push", "-q", "-r", self.line.nodes[number], self.url
        )
        took = time.perf_counter() - started_at
        outcome.ok()
        return took


def measure_pushes(setting: Setting) -> Iterator[Row]:
    """Yield the rows about one whole push."""
    for mirrors in (1, 2):
        with setting.fleet(mirrors) as fleet:
            yield from _measure_pushes(setting, fleet, mirrors)


def _measure_pushes(setting: Setting, fleet: Fleet, mirrors: int) -> Iterator[Row]:
    both = _make_repositories(setting, fleet, 2 * (setting.runs + _WARM_UP))
    with Fronts(fleet, setting.directory / "fronts") as fronts:
        plain_sessions = fronts.plain_sessions(both.served)
        yield _whole_push(setting, fronts, both, plain_sessions, mirrors)
        yield _server_share(setting, fronts, both, plain_sessions, mirrors)
        if mirrors == 1:
            yield _through_openssh(setting, fronts, both)


@dataclass(frozen=True, slots=True)
class _Both:
    """Two clients that have done exactly the same so far."""

    hg: HgClient
    line: Line
    copy: Line
    served: Path  # plain repositories by their path

    def pushers(self, ours: str, plain: str) -> tuple[Pusher, Pusher]:
        """Return who pushes to hgfleet and who to plain Mercurial."""
        return Pusher(self.hg, self.line, ours), Pusher(self.hg, self.copy, plain)


def _make_repositories(setting: Setting, fleet: Fleet, pushes: int) -> _Both:
    """Make both clients' repositories, and give each server the first changesets."""
    hg = fleet.client()
    line = build_line(hg, setting.directory / "line", _FIRST + pushes)
    both = _Both(hg, line, line.copied(setting.directory / "copy"), setting.directory / "served")
    plain = both.served / _PATH
    plain.parent.mkdir(parents=True)
    hg.run("init", plain).ok()
    fleet.create(_PATH)
    for pusher in both.pushers(fleet.ssh_url(_PATH), str(plain)):
        pusher.push(_FIRST - 1)
    return both


def _whole_push(setting: Setting, fronts: Fronts, both: _Both, plain: Path, mirrors: int) -> Row:
    pushers = both.pushers(fronts.fleet.ssh_url(_PATH), fronts.front("plain", plain).url(_PATH))
    seen, beside = _in_turns(*pushers, _FIRST, setting.runs)
    what = f"`hg push` of one changeset, wall, {_mirrors(mirrors)}"
    return Row("push", what, milliseconds(seen), milliseconds(beside), _PLAIN, Goal(0.6))


def _server_share(setting: Setting, fronts: Fronts, both: _Both, plain: Path, mirrors: int) -> Row:
    ours_tap, plain_tap = fronts.tap("tap-ours", fronts.own_sessions), fronts.tap("tap-plain", plain)
    urls = [fronts.front(tap.name, tap.socket).url(_PATH) for tap in (ours_tap, plain_tap)]
    _in_turns(*both.pushers(*urls), _FIRST + setting.runs + _WARM_UP, setting.runs)
    return Row(
        "push",
        f"the server's share of it, {_mirrors(mirrors)}",
        milliseconds(_server_seconds(ours_tap.journal)),
        milliseconds(_server_seconds(plain_tap.journal)),
        _PLAIN,
        Goal(0.35),
        note="from the session's start to its last answer, without the client's own time in between",
    )


def _through_openssh(setting: Setting, fronts: Fronts, both: _Both) -> Row:
    """Push the same from both clients to repositories of their own, through one server each."""
    urls = []
    for name, front in (("openssh", fronts.openssh("openssh", fronts.own_sessions)), ("embedded", None)):
        path = fronts.fleet.create(f"bench/{name}")
        urls.append(front.url(path) if front else fronts.fleet.ssh_url(path))
    pushers = both.pushers(*urls)
    for pusher in pushers:
        pusher.push(_FIRST - 1)
    seen, beside = _in_turns(*pushers, _FIRST, setting.runs)
    what = "`hg push` of one changeset through OpenSSH, wall"
    return Row("push", what, milliseconds(seen), milliseconds(beside), "the embedded SSH server")


def _in_turns(ours: Pusher, plain: Pusher, first: int, runs: int) -> tuple[list[float], list[float]]:
    """Push alternately, each first as often as second; return both sides' seconds without the warm-up."""
    seen, beside = list[float](), list[float]()
    for number in range(first, first + runs + _WARM_UP):
        pair = ((ours, seen), (plain, beside))
        for pusher, seconds in pair if number % 2 else reversed(pair):
            seconds.append(pusher.push(number))
    return seen[_WARM_UP:], beside[_WARM_UP:]


def _server_seconds(journal: Path) -> list[float]:
    sessions = [json.loads(text) for text in journal.read_text().splitlines()]
    return [sum(session["turns"]) for session in sessions[_WARM_UP:]]


def _mirrors(count: int) -> str:
    return "one mirror" if count == 1 else f"{count} mirrors"
