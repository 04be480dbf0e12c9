"""Pushes changesets one by one over sessions that stay open: many real pushes without many `hg` processes.

Run as a program with `hg`'s environment: `python -m bench.many_pushes PLAN`. PLAN is JSON: `config`
(name=value …) and `pushes`, a list of {directory, url, nodes}: each node is one push, a few repositories
at a time take turns. It prints one line per push: the seconds that it took.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mercurial import exchange, extensions, initialization
from mercurial import ui as uimod
from mercurial.repo import factory

_OPEN_SESSIONS = 10  # an account may have only so many at once


def main(plan_path: Path) -> None:
    """Do all pushes of the plan."""
    plan = json.loads(plan_path.read_text())
    ui = _make_ui(plan["config"])
    for start in range(0, len(plan["pushes"]), _OPEN_SESSIONS):
        _push_in_turns(ui, plan["pushes"][start : start + _OPEN_SESSIONS])


def _push_in_turns(ui: Any, entries: list[dict[str, Any]]) -> None:
    channels = [_Channel(ui, entry) for entry in entries]
    rounds = zip_longest(*(channel.push_each() for channel in channels))
    for seconds in (value for one in rounds for value in one if value is not None):
        print(seconds, flush=True)
    for channel in channels:
        channel.close()


def _make_ui(config: list[str]) -> Any:
    initialization.init()
    ui = uimod.ui.load()
    extensions.loadall(ui)
    for item in (*config, "ui.quiet=yes"):
        name, _, value = item.partition("=")
        section, _, key = name.partition(".")
        ui.setconfig(section.encode(), key.encode(), value.encode(), b"bench")
    return ui


class _Channel:
    """One local repository and an open session to push it through."""

    def __init__(self, ui: Any, entry: dict[str, Any]) -> None:
        self._repo = factory.repository(ui.copy(), entry["directory"].encode())
        self._peer = factory.peer(self._repo.ui, {}, entry["url"].encode())
        self._nodes = [bytes.fromhex(text) for text in entry["nodes"]]

    def push_each(self) -> Iterator[float]:
        """Push the nodes in order, yielding how long each took."""
        for node in self._nodes:
            started_at = time.perf_counter()
            done = exchange.push(self._repo, self._peer, revs=[node])
            assert done.cgresult, "the server did not take the changeset"
            yield time.perf_counter() - started_at

    def close(self) -> None:
        """End the session."""
        self._peer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
