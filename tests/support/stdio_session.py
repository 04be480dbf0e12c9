"""What a session worker does, as a program: `python -m tests.support.stdio_session SOCKET COPY COMMAND …`.

Brings the copy up to date as a session does before its hello, then becomes the command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.hgext import local_ui, recovery
from hgfleet.hgext.copies import Copy
from hgfleet.model.ids import RepoId


def main() -> None:
    socket, directory, *command = sys.argv[1:]
    ui = local_ui.load_ui(local_ui.LocalOptions("primary", "primary", Path(socket)))
    copy = Copy(ui, directory)
    standing = recovery.bring_up_to_date(copy, RepoId(copy.directory.name), LogAgentClient(Path(socket)))
    if standing.problem is not None:
        sys.stderr.write(f"{standing.problem.message}\n")
        sys.stderr.flush()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
