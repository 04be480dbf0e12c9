"""The process in which `hgfleet log adopt --yes` reads one copy: the command itself never loads Mercurial.

Promises: answers one JSON line, `{"ok": true, "seq"}` or the form in which errors travel in frames; whatever
Mercurial prints is no part of the answer.
Does not: choose the copy (cli.adoption).
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from typing import Any

from hgfleet.adapters.local_client import parse_error
from hgfleet.adapters.processes import PIPE, Program, start
from hgfleet.cli.adoption import Lost
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import FleetError, InDoubtError, RejectedError
from hgfleet.model.adoption import Adopted
from hgfleet.model.frames import error_header
from hgfleet.model.ids import HostName, Seq, parse_digest, parse_repo_id, parse_repo_path

IDENTITY = "host:primary"  # whoever may run commands on the host acts as the host


def run_adopt(command: tuple[str, ...], lost: Lost) -> int:
    """Adopt what the report named and return the `reset`'s seq; raise the process's error."""
    if lost.adopt is None:
        raise RejectedError("adopt.impossible", "there is no copy to adopt", reason=lost.reason)
    wanted = {
        "path": lost.path,
        "repository": lost.repository,
        "host": lost.adopt.host,
        "seq": lost.adopt.seq,
        "digest": lost.adopt.digest,
    }
    child = start(Program([*command, "--source", json.dumps(wanted)], stdout=PIPE))
    try:
        line = child.stdout.readline()
    finally:
        child.stop(5.0)
        child.close()
    if not line:
        raise InDoubtError(
            "adopt.died", "the process ended without an answer", hint="ask for the report again"
        )
    answer = json.loads(line)
    if not answer.get("ok"):
        raise parse_error(answer.get("error"))
    return int(answer["seq"])


def run_adopt_process(layout: FleetLayout, source: str) -> int:
    """Adopt and answer on standard output; return the exit status."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        seq = _adopt(layout, json.loads(source))
    except FleetError as error:
        print(json.dumps(error_header(error)), file=answers)
        return error.exit_code
    print(json.dumps({"ok": True, "seq": seq}), file=answers)
    return 0


def _adopt(layout: FleetLayout, wanted: dict[str, Any]) -> Seq:
    from hgfleet.adapters.agent_client import LogAgentClient
    from hgfleet.hgext.adopt import adopt
    from hgfleet.hgext.copies import Copy
    from hgfleet.hgext.local_ui import LocalOptions, load_ui

    host = layout.host(HostName(wanted["host"]))
    ui = load_ui(
        LocalOptions(
            role="primary" if host.name == layout.primary.name else "mirror",
            host=host.name,
            agent_socket=layout.agent_socket,
            spool_directory=layout.primary.spool,
            inline_limit_bytes=layout.config.log.inline_limit_bytes,
            allow_faults=layout.config.testing.allow_faults,
        )
    )
    copy = Copy(ui, host.repositories / parse_repo_id(wanted["repository"]))
    stands_at = Adopted(Seq(wanted["seq"]), parse_digest(wanted["digest"]))
    author = {"identity": IDENTITY, "trace": uuid.uuid4().hex}
    with LogAgentClient(layout.agent_socket) as agent:
        return adopt(copy, parse_repo_path(wanted["path"]), stands_at, agent, author).seq
