"""How far the copies of this agent's hosts are in the log, for lag tools and `hgfleet log lag`.

A host's position in a partition is where the first message lies that one of its copies lacks: what every
repository of the partition has decided there, and never more. Which hosts are this agent's it knows from the
reports that they hand it.

Promises: nothing that a host has not applied is counted as done, in seqs of its own reports; a position is
offset and epoch together. Where the log has a board, it is written every COMMIT_SECONDS.
Does not: give anybody a place to go on from, or count the primary's own copies, which catch up when they are
used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from hgfleet.errors import FleetError
from hgfleet.model.fleet_records import Member, Report, parse_member_key
from hgfleet.model.ids import HostName, Partition, Position, RepoId, Seq
from hgfleet.ports.progress import ProgressBoard
from hgfleet.replication.agent_view import AgentView
from hgfleet.replication.fleet_status import describe_fleet

COMMIT_SECONDS = 5.0
MOST_LOOKUPS = 500  # per partition: a host that has just begun lacks everything

logger = logging.getLogger("hgfleet.replication.agent_progress")


class Progress:
    """The hosts that report through this agent."""

    def __init__(self, view: AgentView, board: ProgressBoard | None) -> None:
        self._view = view
        self._board = board
        self._hosts: set[HostName] = set()
        self._last_error = ""

    def note_published(self, key: str) -> None:
        """Learn from a published record's key whose agent this is."""
        member = parse_member_key(key)
        if member is not None and key.startswith(("member/", "report/")):
            self._hosts.add(member.host)

    async def run(self) -> None:
        """Commit for ever; does nothing where the log has no board."""
        while self._board is not None:
            await self._view.until(lambda: False, COMMIT_SECONDS)
            for host in sorted(self._hosts):
                await self._commit(self._board, host)

    async def describe(self) -> dict[str, Any]:
        """Return every known host's lag per partition, and the repositories that are farthest behind."""
        board = self._board
        committed = (
            await asyncio.to_thread(board.committed)
            if board is not None
            else {host: self.positions(host) for host in sorted(self._hosts)}
        )
        return {
            "partitions": [
                self._describe(host, partition, position)
                for host, positions in committed.items()
                for partition, position in sorted(positions.items())
                if partition in self._view.readers
            ],
            "repositories": [
                row | {"path": self._view.catalogue.path_of(row["repository"])}
                for row in describe_fleet(self._view.fleet)["lag"]
            ],
        }

    def positions(self, host: HostName) -> dict[Partition, Position]:
        """Return where the first message lies that the host lacks, per partition."""
        reports = self._reports(host)
        behind = {partition: self._behind(partition, reports) for partition in self._view.readers}
        return {
            partition: self._first_lacked(partition, applied)
            for partition, applied in behind.items()
            if len(applied) <= MOST_LOOKUPS  # what was written down last still holds
        }

    def _behind(self, partition: Partition, reports: dict[RepoId, Report]) -> dict[RepoId, Seq]:
        """Return the repositories whose copy lacks something, and up to where it is."""
        behind: dict[RepoId, Seq] = {}
        for repository, head in self._view.readers[partition].heads.items():
            report = reports.get(repository)
            if head.is_deleted and (report is None or report.is_deleted):
                continue
            applied = report.applied if report is not None else Seq(0)
            if applied < head.seq:
                behind[repository] = applied
        return behind

    def _first_lacked(self, partition: Partition, behind: dict[RepoId, Seq]) -> Position:
        lowest = self._view.readers[partition].position
        for repository, applied in behind.items():
            for entry in self._view.find(repository, applied, 1):
                if entry.offset < lowest.offset:
                    lowest = Position(entry.offset, entry.position.epoch)
        return lowest

    def _reports(self, host: HostName) -> dict[RepoId, Report]:
        """Return the reports of the host's newest incarnation."""
        fleet = self._view.fleet
        newest = Member(host, fleet.next_incarnation(host) - 1)
        return {report.repository: report for report in fleet.reports() if report.member == newest}

    def _describe(self, host: HostName, partition: Partition, position: Position) -> dict[str, Any]:
        end = self._view.readers[partition].position.offset
        return {
            "host": host,
            "partition": partition,
            "offset": position.offset,
            "epoch": position.epoch,
            "end": end,
            "lag": max(0, end - position.offset),
        }

    async def _commit(self, board: ProgressBoard, host: HostName) -> None:
        """Commit one host's positions; a board that does not answer harms nobody."""
        commit: Callable[..., None] = board.commit
        try:
            await asyncio.to_thread(commit, host, self.positions(host))
        except FleetError as error:
            if str(error) != self._last_error:
                logger.warning("progress.not-committed", extra={"host": host, "reason": str(error)})
            self._last_error = str(error)
        else:
            self._last_error = ""
