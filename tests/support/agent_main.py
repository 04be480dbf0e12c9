"""One log agent as a process: `python -m tests.support.agent_main DIRECTORY NAME [--standby|--take-over]`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from hgfleet.replication.log_agent import run_log_agent
from hgfleet.runtime.faults import faults_from_environment
from tests.support.agents import AgentPlace


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    directory, name, *words = sys.argv[1:]
    place = AgentPlace(Path(directory), name)
    log = place.open_any_log()
    options = place.options(
        log,
        log.log_id,
        may_lead="--standby" not in words,
        takes_over="--take-over" in words,
        faults=faults_from_environment(is_allowed=True),
    )
    asyncio.run(run_log_agent(options))


if __name__ == "__main__":
    main()
