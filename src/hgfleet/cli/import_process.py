"""`hgfleet repo import`, both ends: the process that holds Mercurial, and the command that watches it.

The process prints one JSON object per line: `{"topic", "position", "total"}` as it goes on, and at last
`{"ok": true, …}` or the form in which errors travel in frames.

Promises: the command ends as the process does, with its error; whatever Mercurial prints is no part of
the answer.
Does not: create the repository (cli.repo_commands), or import anything itself (hgext.importer).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from hgfleet.adapters.local_client import parse_error
from hgfleet.adapters.processes import PIPE, Program, start
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import FleetError, InDoubtError
from hgfleet.model.frames import error_header
from hgfleet.model.ids import RepoId, parse_repo_id
from hgfleet.runtime import clock

_REPORT_SECONDS = 0.1  # progress is told no more often


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: `total` is None where it cannot be known."""

    topic: str
    position: int
    total: int | None


# ---- the command's end


def run_import(
    command: tuple[str, ...], repository: RepoId, source: str, show: Callable[[Progress], None]
) -> dict[str, Any]:
    """Run the process to its end and return its answer; raise its error, InDoubtError when it died."""
    child = start(Program([*command, f"--repository={repository}", f"--source={source}"], stdout=PIPE))
    try:
        for line in _lines(child.stdout):
            if "topic" in line:
                show(Progress(line["topic"], line["position"], line["total"]))
            elif line.get("ok"):
                return line
            else:
                raise parse_error(line.get("error"))
        raise InDoubtError(
            "import.died",
            "the import ended without an answer",
            hint="run it again to find out",
            repository=repository,
        )
    finally:
        child.stop(1.0)
        child.close()


def _lines(output: Any) -> Iterator[dict[str, Any]]:
    for line in output:
        yield json.loads(line)


# ---- the process's end


def run_import_process(layout: FleetLayout, repository_text: str, source: str) -> int:
    """Import and answer on standard output; return the exit status."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        answer = _import(layout, parse_repo_id(repository_text), source, answers)
    except FleetError as error:
        print(json.dumps(error_header(error)), file=answers)
        return error.exit_code
    print(json.dumps({"ok": True, **answer}), file=answers)
    return 0


def _import(layout: FleetLayout, repository: RepoId, source: str, answers: TextIO) -> dict[str, Any]:
    from hgfleet.adapters.agent_client import LogAgentClient
    from hgfleet.hgext.copies import Copy
    from hgfleet.hgext.importer import import_repository
    from hgfleet.hgext.local_ui import LocalOptions, load_ui

    config, primary = layout.config, layout.primary
    ui = load_ui(
        LocalOptions(
            role="primary",
            host=primary.name,
            agent_socket=layout.agent_socket,
            spool_directory=primary.spool,
            inline_limit_bytes=config.log.inline_limit_bytes,
            append_deadline_seconds=config.push.append_deadline_seconds,
            allow_faults=config.testing.allow_faults,
        )
    )
    copy = Copy(ui, primary.repositories / repository)
    with LogAgentClient(layout.agent_socket) as agent:
        done = import_repository(copy, repository, source, agent, _Reporter(answers).report)
    return {"seq": done.state.seq, "changesets": done.changesets, "is_new": done.is_new}


class _Reporter:
    """Writes progress, not more often than somebody can read it."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._topic = ""
        self._reported_at = 0.0

    def report(self, topic: str, position: int, total: int | None) -> None:
        now = clock.monotonic()
        if topic == self._topic and now - self._reported_at < _REPORT_SECONDS:
            return
        self._topic, self._reported_at = topic, now
        print(json.dumps({"topic": topic, "position": position, "total": total}), file=self._answers)
