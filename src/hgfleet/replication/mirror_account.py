"""What a mirror says of its copies: one report each, again whenever it changed, all of them when it joins.

Promises: everything noted as changed is said with the next batch; a late word of ours that landed behind a
newer one is said again; when the fate of a word that counts this mirror out is not known, the mirror goes on
as its next incarnation.
Does not: publish (mirror_reports) or change anything about copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog

from hgfleet.adapters.agent_answers import StateItem
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Report
from hgfleet.model.ids import CATALOGUE, RepoId
from hgfleet.model.membership import Membership
from hgfleet.replication.mirror_copies import Copies
from hgfleet.replication.mirror_member import MirrorMember
from hgfleet.replication.mirror_paths import MirrorPaths
from hgfleet.replication.mirror_reports import Answer, NotPublished, Published, Reports
from hgfleet.runtime.retry import Backoff

_log = structlog.get_logger()


class MirrorAccount:
    """Reports of all copies and of the catalogue, under the member's current incarnation."""

    def __init__(self, copies: Copies, paths: MirrorPaths, member: MirrorMember, reports: Reports) -> None:
        self._copies = copies
        self._paths = paths
        self._member = member
        self._reports = reports
        self._acked_offset = 0
        self._backoff = Backoff(0.05, 1.0)

    def say(self, changed: Iterable[RepoId]) -> None:
        """Say how these stand now; nothing before the mirror has joined, for joining says it all."""
        membership = self._member.membership
        if membership is None:
            return
        for repository in changed:
            report = self._report(membership, repository)
            if report is not None:
                self._reports.say(report.key, dict(report.value))

    def say_all(self) -> None:
        """Say how everything stands."""
        self.say([CATALOGUE, *(copy.repository for copy in self._copies)])

    def say_missing(self, view: FleetView) -> None:
        """Say what the fleet's state, read anew, does not have of this incarnation or has otherwise."""
        membership = self._member.membership
        if membership is None:
            return
        for repository in (CATALOGUE, *(copy.repository for copy in self._copies)):
            is_ready = repository != CATALOGUE or self._paths.is_restored
            report = self._report(membership, repository)
            if is_ready and view.report(membership.member, repository) != report:
                self.say([repository])

    def check_own(self, record: Report, item: StateItem) -> None:
        """Compare what was read of ourselves with what is true; say that unless it is on its way."""
        membership = self._member.membership
        is_old = item.offset + 1 < self._acked_offset or self._reports.is_pending(record.key)
        if membership is None or record.member != membership.member or is_old:
            return
        if self._report(membership, record.repository) != record:
            self.say([record.repository])

    def settle(self, answer: Answer, now: float) -> None:
        """Take the log's answer to a batch."""
        if isinstance(answer, Published):
            self._backoff.reset()
            self._reports.settle(answer, now, 0.0)
            self._acked_offset = max(self._acked_offset, answer.offset)
            self._member.acknowledge(answer, now)
            return
        _log.warning("applier.not-published", is_in_doubt=answer.is_in_doubt, reason=answer.reason)
        self._reports.settle(answer, now, self._backoff.next_pause())
        if _may_count_out_late(answer):
            self._member.abandon()

    def _report(self, membership: Membership, repository: RepoId) -> Report | None:
        if repository == CATALOGUE:
            return membership.report(CATALOGUE, self._paths.applied, self._paths.exposed)
        copy = self._copies.get(repository)
        if copy is None:
            return None
        parked = "" if copy.is_returning else copy.parked
        return membership.report(repository, copy.applied, copy.exposed, parked, is_deleted=copy.is_deleted)


def _may_count_out_late(answer: NotPublished) -> bool:
    """Whether a word may land at any time that takes us out of a watermark, though we may answer by then."""
    values = [value for value in answer.values.values() if isinstance(value, Mapping)]
    return answer.is_in_doubt and any(value.get("parked") or value.get("is_deleted") for value in values)
