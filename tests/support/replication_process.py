"""One process of a small fleet: `python -m tests.support.replication_process ROLE DIRECTORY [HOST]`.

The real log agent, coordinator or applier on files below DIRECTORY (or what fleet_parts finds there), without
configuration file or supervisor.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgfleet.model.ids import HostName
from hgfleet.model.retention import RetentionPolicy, SnapshotPolicy
from hgfleet.runtime.faults import faults_from_environment
from hgfleet.runtime.lifecycle import stop_on_signals
from hgfleet.runtime.observability import configure_logging

if TYPE_CHECKING:
    from hgfleet.replication.applier import ApplierOptions

LEASE_SECONDS = 2.0
SELF_STALE_SECONDS = 1.0
WORKER = "from hgfleet.hgext.apply_worker import *; run_apply_worker(ApplyWorkerOptions({host!r}, True))"


def main() -> None:
    """Run the role until SIGTERM."""
    role, directory = sys.argv[1], Path(sys.argv[2])
    configure_logging(role, "debug" if role == "coordinator" else "info")
    if role == "log-agent":
        _run_log_agent(directory)
    elif role == "coordinator":
        _run_coordinator(directory, HostName(sys.argv[3] or "primary"))
    else:
        _run_applier(directory, HostName(sys.argv[3]))


def _run_log_agent(directory: Path) -> None:
    from hgfleet.replication.agent_parts import AgentOptions
    from hgfleet.replication.log_agent import run_log_agent
    from tests.support.fleet_parts import open_blobs, open_log

    log = open_log(directory)
    options = AgentOptions(
        socket_path=directory / "agent.sock",
        host=HostName("primary"),
        index_path=directory / "index.sqlite",
        log=log,
        log_id=log.log_id,
        blobs=open_blobs(directory),
        **_keeping(directory),
        faults=faults_from_environment(is_allowed=True),
    )
    asyncio.run(run_log_agent(options))


def _keeping(directory: Path) -> dict[str, Any]:
    """Keep as much as the test says in `retention.json`; the defaults where it says nothing."""
    path = directory / "retention.json"
    if not path.exists():
        return {}
    fields = json.loads(path.read_text())
    seconds = fields["seconds"]
    return {
        "snapshots": SnapshotPolicy(
            seconds, fields.get("max_messages", 1_000_000), fields.get("max_bytes", 1 << 40)
        ),
        "retention": RetentionPolicy(seconds, fields["interval_seconds"], fields["blob_grace_seconds"]),
    }


def _run_coordinator(directory: Path, host: HostName) -> None:
    from hgfleet.replication.coordinator import CoordinatorOptions, run_coordinator

    options = CoordinatorOptions(
        host=host,
        agent_socket=directory / "agent.sock",
        lease_seconds=LEASE_SECONDS,
        floor=1,
        faults=faults_from_environment(is_allowed=True),
    )
    run_coordinator(options, stop_on_signals())


def _run_applier(directory: Path, host: HostName) -> None:
    from hgfleet.replication.applier import ApplierOptions, run_applier

    home = directory / host
    home.mkdir(exist_ok=True)
    options = ApplierOptions(
        host=host,
        repositories=home / "repos",
        spool=home / "spool",
        catalogue=home / "catalogue.sqlite",
        serving=home / "serving.json",
        agent_socket=directory / "agent.sock",
        worker_command=(sys.executable, "-c", WORKER.format(host=str(host))),
        worker_environment=dict(os.environ),
        self_stale_seconds=SELF_STALE_SECONDS,
        removal_grace_seconds=0.3,
        faults=faults_from_environment(is_allowed=True),
    )
    stop = stop_on_signals()
    if (directory / "retention.json").exists():
        _start_maker(options, stop)
    run_applier(options, stop)


def _start_maker(options: ApplierOptions, stop: threading.Event) -> None:
    from hgfleet.replication.snapshot_maker import MakerOptions, SnapshotMaker

    maker = MakerOptions(
        host=options.host,
        repositories=options.repositories,
        spool=options.spool,
        agent_socket=options.agent_socket,
        worker_command=options.worker_command,
        worker_environment=options.worker_environment,
        check_seconds=0.2,
        faults=options.faults,
    )
    SnapshotMaker(maker, stop).start()


if __name__ == "__main__":
    main()
