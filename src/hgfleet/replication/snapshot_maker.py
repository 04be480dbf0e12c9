"""Makes this host's share of the fleet's snapshots, one after another, beside the work of its applier.

    ask the agent what is due here -> a worker writes the copy's state to a file -> put it as a blob
    -> get it back and restore it into a copy of its own -> announce it

Reading the blob back could be had for less by its digest; restoring it also tells that this release can,
that the state is the one that was frozen, and that it fits the log's own fingerprint. It costs as much as
making it, at low priority, where being wrong costs a repository.

Promises: nothing is announced that was not restored from the stored blob to the same full digest. Killed at
any point it begins anew, and what it left is a file that the next attempt removes or a blob that retention
does. What fails is tried again with growing pauses, each repository for itself; no reader and no push waits.
Does not: decide what is due (the log agent does), or hold a copy's lock but for moments.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError, PoisonError, TransientError
from hgfleet.model.ids import Digest, HostName, RepoId
from hgfleet.model.message import PayloadRef
from hgfleet.replication.mirror_worker import ApplyWorker, worker_program
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults

RETRY_SECONDS = (5.0, 1800.0)  # after a failure of one repository: first and longest pause
ROOM_FACTOR = 3  # of the store's size
ROOM_BYTES = 64 * 1024 * 1024
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MakerOptions:
    """What a maker needs to know."""

    host: HostName
    repositories: Path  # <host>/repos
    spool: Path  # <host>/spool
    agent_socket: Path
    worker_command: tuple[str, ...]
    worker_environment: Mapping[str, str]
    check_seconds: float  # between two questions what is due
    answer_seconds: float = 6 * 3600.0  # a worker that says nothing for so long is replaced
    faults: Faults = NO_FAULTS


class SnapshotMaker(threading.Thread):
    """The thread that makes them."""

    def __init__(self, options: MakerOptions, stop: threading.Event) -> None:
        super().__init__(name="snapshots", daemon=True)
        self._options = options
        self._stop_event = stop
        self._directory = options.spool / "snapshot"
        self._failures: dict[RepoId, int] = {}
        self._not_before: dict[RepoId, float] = {}

    def run(self) -> None:
        """Make what is due until told to stop; the worker ends with this thread."""
        with LogAgentClient(self._options.agent_socket) as client:
            while not self._stop_event.wait(self._options.check_seconds):
                self._make_due(client)

    def _make_due(self, client: LogAgentClient) -> None:
        try:
            due = client.snapshots_due(self._options.host)
        except FleetError as error:  # the agent is gone or starting: it is asked again
            _log.info("snapshots.not-asked", reason=str(error))
            return
        for repository in due:
            if self._stop_event.is_set():
                return
            if clock.boottime() >= self._not_before.get(repository, 0.0):
                self._attempt(client, repository)

    def _attempt(self, client: LogAgentClient, repository: RepoId) -> None:
        program = worker_program(self._options.worker_command, dict(self._options.worker_environment))
        worker = ApplyWorker(program, self._options.answer_seconds)
        try:
            self._make(client, worker, repository)
        except (FleetError, OSError) as error:
            self._note_failure(repository, error)
        else:
            self._failures.pop(repository, None)
        finally:
            worker.close()  # whatever a large repository took is given back
            shutil.rmtree(self._directory, ignore_errors=True)

    def _make(self, client: LogAgentClient, worker: ApplyWorker, repository: RepoId) -> None:
        started_at = clock.monotonic()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        self._check_room(self._options.repositories / repository)
        self._options.faults.reach("snapshot-before-making")
        header, blob = self._write(worker, repository)
        self._options.faults.reach("snapshot-before-blob")
        client.blob_put(self._directory / "made", blob.sha256, blob.size_bytes)
        self._options.faults.reach("snapshot-after-blob")
        self._read_back(client, worker, header, blob)
        self._options.faults.reach("snapshot-before-message")
        is_in_force = client.announce(header, blob, self._options.host)
        _log.info(
            "snapshots.made",
            repository=repository,
            seq=header["seq"],
            size_bytes=blob.size_bytes,
            seconds=round(clock.monotonic() - started_at, 2),
            is_in_force=is_in_force,
        )

    def _check_room(self, repository: Path) -> None:
        """Leave the disk to the applier where the file, its copy read back and the restored one won't fit."""
        needed = ROOM_FACTOR * sum(path.stat().st_size for path in repository.rglob("*.[id]"))
        free = shutil.disk_usage(self._directory).free
        if needed + ROOM_BYTES > free:
            raise TransientError("snapshot.no-room", "the disk has no room for making a snapshot", free=free)

    def _write(self, worker: ApplyWorker, repository: RepoId) -> tuple[dict[str, Any], PayloadRef]:
        answer = worker.request(
            "snapshot",
            directory=str(self._options.repositories / repository),
            target=str(self._directory / "made"),
        ).header
        payload = answer["payload"]
        return answer["header"], PayloadRef(payload["size_bytes"], Digest(payload["sha256"]), False)

    def _read_back(
        self, client: LogAgentClient, worker: ApplyWorker, header: dict[str, Any], blob: PayloadRef
    ) -> None:
        """Restore the stored blob into a copy that nobody uses; the worker compares the full digest."""
        stored, scratch = self._directory / "stored", self._directory / "copy"
        client.blob_get(blob.sha256, stored)
        answer = worker.request(
            "restore",
            directory=str(scratch),
            source=str(stored),
            seq=header["seq"],
            digest=header["digest"],
        )
        if answer.header["seq"] != header["seq"]:
            raise PoisonError("snapshot.damaged", "damaged snapshot: it does not restore")

    def _note_failure(self, repository: RepoId, error: Exception) -> None:
        failures = self._failures[repository] = self._failures.get(repository, 0) + 1
        first, longest = RETRY_SECONDS
        pause = min(longest, first * 2.0 ** min(failures - 1, 30))
        self._not_before[repository] = clock.boottime() + pause
        _log.warning(
            "snapshots.failed", repository=repository, reason=str(error), pause_seconds=round(pause, 2)
        )
