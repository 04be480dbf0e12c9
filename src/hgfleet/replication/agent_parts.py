"""The log agent's options and parts, as its requests need them.

Promises: nothing here changes while the agent runs.
Does not: build the parts (log_agent).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hgfleet.model.ids import HostName
from hgfleet.model.message import INLINE_LIMIT_BYTES
from hgfleet.model.retention import (
    DEFAULT_RETENTION,
    DEFAULT_SNAPSHOTS,
    RetentionPolicy,
    SnapshotPolicy,
)
from hgfleet.ports.blob_store import BlobStore
from hgfleet.ports.progress import ProgressBoard
from hgfleet.ports.replication_log import ReplicationLog
from hgfleet.replication.agent_appends import AppendDesk
from hgfleet.replication.agent_catalogue import CatalogueDesk
from hgfleet.replication.agent_log_io import LogIo
from hgfleet.replication.agent_primary import Primary
from hgfleet.replication.agent_progress import Progress
from hgfleet.replication.agent_view import AgentView
from hgfleet.replication.agent_visibility import VisibilityDesk
from hgfleet.runtime.faults import NO_FAULTS, Faults


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What one log agent is told; `log_id` names the log, `index_path` is this agent's own."""

    socket_path: Path
    host: HostName
    index_path: Path
    log: ReplicationLog
    log_id: str
    blobs: BlobStore
    may_lead: bool = True  # this host may be the primary; False on a mirror
    may_found: bool = True  # it may also bid where no epoch was ever opened; False on a standby
    takes_over: bool = False  # bid although another host owns the newest epoch
    progress: ProgressBoard | None = (
        None  # where hosts' progress is written down, if the log has such a place
    )
    append_deadline_seconds: float = 10.0
    inline_limit_bytes: int = INLINE_LIMIT_BYTES
    snapshots: SnapshotPolicy = DEFAULT_SNAPSHOTS
    retention: RetentionPolicy = DEFAULT_RETENTION
    release: str = ""
    faults: Faults = NO_FAULTS


@dataclass(frozen=True, slots=True)
class AgentParts:
    """One running agent."""

    options: AgentOptions
    view: AgentView
    io: LogIo
    desk: AppendDesk
    primary: Primary
    catalogue_desk: CatalogueDesk
    visibility: VisibilityDesk
    progress: Progress
    pool: ThreadPoolExecutor  # for reading the log; the loop itself never waits for a disk
    blob_pool: ThreadPoolExecutor  # a blob may take minutes, and nobody who reads waits for that
