"""The fold of the state topic: who is counted, how far everybody is, what mirrors may show.

The catalogue is a repository here, with the id CATALOGUE. A counted member that never reported on a
repository has applied and exposed nothing of it; one that has parked it answers no reads of it and is left
out.

Promises: a decision counts iff no newer claim stands before it, for every reader; watermarks never fall; what
`visible` once affirmed stays true; a reader of the compacted topic arrives at the same decisions, and once it
has read to an end it affirms nothing that a mirror in service does not show.
Does not: decide (model.coordination), know time, or say what a mirror should do next (model.membership).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hgfleet.model.demand import Demand
from hgfleet.model.feed_marks import FeedMark, FeedMarks, FeedPlace
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Decision,
    Evict,
    Heartbeat,
    LifeSign,
    Member,
    Recount,
    Report,
    Stage,
    StateRecord,
    Watermark,
    parse_member_key,
    parse_record,
    parse_report_key,
)
from hgfleet.model.ids import HostName, Offset, RepoId, Seq
from hgfleet.model.wishes import Wish

NOTHING = Seq(0)
NO_CLAIM = Offset(-1)


@dataclass(frozen=True, slots=True)
class Visibility:
    """Whether a seq is visible on all mirrors, which ones serve the repository, and who is late."""

    is_visible: bool
    mirrors: list[HostName]
    late: list[HostName]


@dataclass(slots=True)
class _Row:
    """One repository."""

    watermark: Seq = NOTHING
    watermark_key: str = ""
    visible: Seq = NOTHING  # the highest seq that all who counted had exposed at some time
    reports: dict[Member, Report] = field(default_factory=dict)
    recounts: dict[Member, Recount] = field(default_factory=dict)
    is_finished: bool = False  # deleted by everybody; its records are being removed

    def applied_by(self, member: Member) -> Seq:
        report = self.reports.get(member)
        return report.applied if report else NOTHING

    def exposed_by(self, member: Member) -> Seq:
        report = self.reports.get(member)
        return report.exposed if report else NOTHING

    def is_answered_by(self, member: Member) -> bool:
        """Whether a counted member counts here: not from its parking until its recount."""
        report = self.reports.get(member)
        return report is None or not (report.is_counted_out or self.is_returning(member))

    def is_returning(self, member: Member) -> bool:
        """Whether the member's copy is well again and waits to be counted again."""
        report, recount = self.reports.get(member), self.recounts.get(member)
        recounted = recount.parks if recount else 0
        return report is not None and not report.is_counted_out and report.parks > recounted

    def is_recountable(self, member: Member) -> bool:
        return self.is_returning(member) and self.applied_by(member) >= self.watermark

    def is_behind(self, member: Member) -> bool:
        is_short = self.applied_by(member) < self.watermark
        return is_short and self.is_answered_by(member) and not self.is_deleted

    @property
    def is_deleted(self) -> bool:
        return self.is_finished or any(report.is_deleted for report in self.reports.values())

    def is_deleted_by_all(self, members: Iterable[Member]) -> bool:
        return all(self.reports[member].is_deleted for member in members if member in self.reports)


class FleetView:
    """The fold, record by record in offset order.

    A coordinator's also knows the `floor`, the least number of mirrors that a watermark needs to move, and
    with `is_cleaning` notes in `superseded` the keys whose records mean nothing any more, and what has
    become visible for `take_shown`.
    """

    def __init__(self, *, floor: int = 1, is_cleaning: bool = False) -> None:
        self._floor = max(floor, 1)
        self.offset = Offset(0)  # behind the last record taken
        self.claim = NO_CLAIM  # the newest
        self.sign: LifeSign | None = None  # the last one of its holder
        self.counted: set[Member] = set()
        self.superseded: dict[str, None] | None = {} if is_cleaning else None  # in order
        self._shown: set[RepoId] | None = set() if is_cleaning else None
        self.feed = FeedMarks()
        self._claim_by_key: dict[str, Offset] = {}
        self._heartbeats: dict[Member, Heartbeat] = {}
        self._newest: dict[HostName, int] = {}  # incarnation that any record names
        self._evicted: dict[HostName, int] = {}  # up to this incarnation
        self._eviction_keys: dict[HostName, str] = {}
        self._admission_keys: dict[Member, str] = {}
        self._rows: dict[RepoId, _Row] = {}
        self._wishes: dict[HostName, Wish] = {}
        self._demands: dict[HostName, Demand] = {}
        self._due: dict[Member, dict[RepoId, Seq]] = {}  # what a counted member must expose before it serves
        self._behind: dict[Member, set[RepoId]] = {}  # per member that asks to be admitted
        self._movable: dict[RepoId, Seq] = {}
        self._recountable: dict[RepoId, list[Member]] = {}

    # -- taking records

    def take(self, key: str, value: Any, offset: Offset) -> StateRecord | None:
        """Take the next record; `offset` is its own. Return it parsed; None: a tombstone or unknown."""
        self.offset = Offset(offset + 1)
        self._note_incarnation(parse_member_key(key))
        record = parse_record(key, value)
        match record:
            case None:
                self._take_tombstone(key, value)
            case Claim():
                self._claim_by_key[key] = self.claim = offset
                self._take_sign(None)
            case LifeSign():
                self._take_sign(record)
            case Heartbeat() | Report() | Wish() | Demand():
                self._take_word(record)
            case FeedMark() | FeedPlace():
                self._take_feed(record)
            case _ if record.ticket.claim == self.claim:
                self._take_decision(record)
            case _:
                self._supersede(record.key)
        return record

    def _take_sign(self, sign: LifeSign | None) -> None:
        if sign is not None and sign.claim != self.claim:
            self._supersede(sign.key)
            return
        known, self.sign = self.sign, sign
        self._supersede(known.key if known else "", in_force=sign.key if sign else "")

    def _take_feed(self, record: FeedMark | FeedPlace) -> None:
        for key in self.feed.take(record):
            self._supersede(key)

    def _take_word(self, record: Heartbeat | Report | Wish | Demand) -> None:
        match record:
            case Heartbeat():
                self._take_heartbeat(record)
            case Report():
                self._take_report(record)
            case Wish():
                self._wishes[record.host] = record
            case Demand():
                self._demands[record.host] = record

    def _take_decision(self, record: Decision) -> None:
        match record:
            case Watermark():
                self._take_watermark(record)
            case Admit():
                self._take_admission(record)
            case Evict():
                self._take_eviction(record)
            case Recount():
                self._take_recount(record)

    def _note_incarnation(self, member: Member | None) -> None:
        if member is not None:
            self._newest[member.host] = max(self._newest.get(member.host, 0), member.incarnation)

    def _take_tombstone(self, key: str, value: Any) -> None:
        if value is None and self.superseded is not None:
            self.superseded.pop(key, None)
        named = parse_report_key(key)
        if value is not None or named is None:
            return
        member, repository = named
        row = self._rows.get(repository)
        if row is None or member not in row.reports:
            return
        del row.reports[member]
        if row.is_finished and not row.reports:
            del self._rows[repository]
        else:
            self._recompute(repository, row)

    def _take_heartbeat(self, record: Heartbeat) -> None:
        member = record.member
        known = self._heartbeats.get(member)
        if known is not None and known.stage is Stage.DRAINING:
            return
        self._heartbeats[member] = record
        if self._is_evicted(member):
            self._supersede(record.key)
        elif member not in self.counted and member not in self._behind:
            self._behind[member] = {r for r, row in self._rows.items() if row.is_behind(member)}

    def _take_report(self, record: Report) -> None:
        if self._is_evicted(record.member):
            self._supersede(record.key)
            return
        row = self._rows.setdefault(record.repository, _Row())
        row.reports[record.member] = record
        self._recompute(record.repository, row)

    def _take_watermark(self, record: Watermark) -> None:
        row = self._rows.setdefault(record.repository, _Row())
        if record.seq <= row.watermark:
            self._supersede(record.key, in_force=row.watermark_key)
            return
        self._supersede(row.watermark_key)
        row.watermark, row.watermark_key = record.seq, record.key
        self._recompute(record.repository, row)

    def _take_admission(self, record: Admit) -> None:
        member = record.member
        if self._is_evicted(member) or member in self.counted:
            self._supersede(record.key, in_force=self._admission_keys.get(member, ""))
            return
        self._count_out(Member(member.host, member.incarnation - 1))
        self.counted.add(member)
        self._admission_keys[member] = record.key
        rows = self._rows.items()
        self._due[member] = {r: row.watermark for r, row in rows if row.watermark and not row.is_deleted}
        self._behind.pop(member, None)
        self._recompute_all()

    def _take_eviction(self, record: Evict) -> None:
        host = record.member.host
        known_key = self._eviction_keys.get(host, "")
        if known_key and self._is_evicted(record.member):
            self._supersede(record.key, in_force=known_key)
            return
        self._count_out(record.member)
        self._supersede(known_key)
        self._eviction_keys[host] = record.key
        self._recompute_all()

    def _take_recount(self, record: Recount) -> None:
        row = self._rows.get(record.repository)
        known = row.recounts.get(record.member) if row else None
        if row is None or record.member not in self.counted or (known and known.parks >= record.parks):
            self._supersede(record.key, in_force=known.key if known else "")
            return
        self._supersede(known.key if known else "")
        row.recounts[record.member] = record
        self._due.setdefault(record.member, {})[record.repository] = row.watermark
        self._recompute(record.repository, row)

    def _count_out(self, newest: Member) -> None:
        """Forget the host's incarnations up to that one; none of them can be admitted any more."""
        self._evicted[newest.host] = max(self._evicted.get(newest.host, 0), newest.incarnation)
        known = self.counted | self._behind.keys() | self._heartbeats.keys()
        for member in [m for m in known if m.host == newest.host and m <= newest]:
            self._forget(member)

    def _forget(self, member: Member) -> None:
        self.counted.discard(member)
        self._behind.pop(member, None)
        self._due.pop(member, None)
        self._supersede(self._admission_keys.pop(member, ""))
        heartbeat = self._heartbeats.pop(member, None)
        self._supersede(heartbeat.key if heartbeat else "")
        for row in self._rows.values():
            report, recount = row.reports.pop(member, None), row.recounts.pop(member, None)
            self._supersede(report.key if report else "")
            self._supersede(recount.key if recount else "")

    def _supersede(self, key: str, *, in_force: str = "") -> None:
        if self.superseded is not None and key not in {"", in_force}:
            self.superseded[key] = None

    def _recompute_all(self) -> None:
        for repository, row in self._rows.items():
            self._recompute(repository, row)

    def _recompute(self, repository: RepoId, row: _Row) -> None:
        """Bring up to date what follows from one repository's row; the cost is the number of members."""
        counted = [member for member in self.counted if row.is_answered_by(member)]
        if counted:
            self._show(repository, row, min(row.exposed_by(member) for member in counted))
        is_deleted = row.is_deleted
        applied = min((row.applied_by(member) for member in counted), default=NOTHING)
        if applied > row.watermark and len(counted) >= self._floor and not is_deleted:
            self._movable[repository] = applied
        else:
            self._movable.pop(repository, None)
        returning = [member for member in self.counted if row.is_recountable(member)]
        if returning and not is_deleted:
            self._recountable[repository] = returning
        else:
            self._recountable.pop(repository, None)
        for member, behind in self._behind.items():
            (behind.add if row.is_behind(member) else behind.discard)(repository)
        if is_deleted:
            self._let_go(repository, row)

    def _show(self, repository: RepoId, row: _Row, seq: Seq) -> None:
        if seq > row.visible:
            row.visible = seq
            if self._shown is not None:
                self._shown.add(repository)

    def _let_go(self, repository: RepoId, row: _Row) -> None:
        """Wait for nobody on a deleted repository, and for no record of it once all have deleted it."""
        for due in self._due.values():
            due.pop(repository, None)
        if row.is_finished or not row.is_deleted_by_all(self.counted):
            return
        row.is_finished = True
        self._supersede(row.watermark_key)
        keys = [report.key for report in row.reports.values()]
        for key in keys + [recount.key for recount in row.recounts.values()]:
            self._supersede(key)

    def _is_evicted(self, member: Member) -> bool:
        return member.incarnation <= self._evicted.get(member.host, 0)

    # -- what everybody may ask

    def claim_of(self, claim: Claim) -> Offset | None:
        """Return the number of a claim, None until it was read."""
        return self._claim_by_key.get(claim.key)

    def watermark(self, repository: RepoId) -> Seq:
        """Return up to where mirrors may expose the repository."""
        row = self._rows.get(repository)
        return row.watermark if row else NOTHING

    def visible_seq(self, repository: RepoId) -> Seq:
        """Return the highest seq that is visible on all mirrors; the feed and notifications wait for it."""
        row = self._rows.get(repository)
        return row.visible if row else NOTHING

    def visible(self, repository: RepoId, seq: Seq) -> Visibility:
        """Say whether every counted member that answers reads of it exposes `seq`, and who does not."""
        row = self._rows.get(repository, _Row())
        counted = sorted(member for member in self.counted if row.is_answered_by(member))
        serving = [m.host for m in counted if self.stage(m) is Stage.SERVING]
        if row.visible >= seq:
            return Visibility(True, serving, [])
        return Visibility(False, serving, [m.host for m in counted if row.exposed_by(m) < seq])

    def heartbeat(self, member: Member) -> Heartbeat | None:
        """Return the member's last heartbeat."""
        return self._heartbeats.get(member)

    def feature_levels(self) -> dict[HostName, int]:
        """Return what each host that is heard of can read, by its last heartbeat; the least of its runs."""
        levels: dict[HostName, int] = {}
        for member, heartbeat in self._heartbeats.items():
            levels[member.host] = min(
                heartbeat.feature_level, levels.get(member.host, heartbeat.feature_level)
            )
        return levels

    def stage(self, member: Member) -> Stage | None:
        """Return what the member last said of itself."""
        heartbeat = self._heartbeats.get(member)
        return heartbeat.stage if heartbeat else None

    def report(self, member: Member, repository: RepoId) -> Report | None:
        """Return the member's last report on a repository."""
        row = self._rows.get(repository)
        return row.reports.get(member) if row else None

    def repositories(self) -> Iterable[RepoId]:
        """Yield every repository that a record names and that is not deleted.

        A joining member reports on each; those that its log no longer has, as deleted.
        """
        return (repository for repository, row in self._rows.items() if not row.is_deleted)

    def reports(self) -> Iterable[Report]:
        """Yield every report in force, for status pages."""
        for row in self._rows.values():
            yield from row.reports.values()

    def wish(self, host: HostName) -> Wish | None:
        """Return what an operator wants of a mirror, None if nobody ever said so."""
        return self._wishes.get(host)

    def demands(self) -> Iterable[Demand]:
        """Return what each host counted of clones, as it last said."""
        return self._demands.values()

    def newest_member(self, host: HostName) -> Member | None:
        """Return the incarnation of a host that was heard last, None when there is none."""
        return max((m for m in self._heartbeats if m.host == host), default=None)

    def behind(self, member: Member) -> int:
        """Return in how many repositories a member that asks to be admitted is below the watermark."""
        return len(self._behind.get(member, ()))

    def next_incarnation(self, host: HostName) -> int:
        """Return an incarnation that no record of the host names; ask after reading to an end."""
        return self._newest.get(host, 0) + 1

    # -- what a mirror asks about itself

    def is_counted(self, member: Member) -> bool:
        """Whether the member is admitted and not evicted."""
        return member in self.counted

    def is_out(self, member: Member) -> bool:
        """Whether the member was evicted: it must go on as its next incarnation."""
        return self._is_evicted(member)

    def due(self, member: Member) -> Mapping[RepoId, Seq]:
        """Return what the counted member must have exposed before it serves, per repository.

        These are the watermarks at its admission; for a repository that it had parked, the one at the
        decision that its copy is counted again.
        """
        return self._due.get(member, {})

    # -- what the coordinator asks

    def take_shown(self) -> dict[RepoId, Seq]:
        """Return what has become visible on all mirrors since the last call."""
        shown, self._shown = self._shown or set(), set()
        return {repository: self.visible_seq(repository) for repository in shown}

    def movable(self) -> dict[RepoId, Seq]:
        """Return the watermarks that may be moved, and where to."""
        return dict(self._movable)

    def admissible(self) -> list[Member]:
        """Return who asks to be counted and may be: level with every watermark, newest of its host."""
        return sorted(m for m, behind in self._behind.items() if not behind and self._is_next(m))

    def recountable(self) -> list[tuple[Member, RepoId, int]]:
        """Return the copies that are well again and level: member, repository, how often it was parked."""
        copies = ((member, r) for r, members in self._recountable.items() for member in members)
        return sorted((member, r, self._rows[r].reports[member].parks) for member, r in copies)

    def is_answered(self, member: Member, repository: RepoId) -> bool:
        """Whether the counted member counts for the repository: it has not parked it, or is recounted."""
        row = self._rows.get(repository)
        return row is None or row.is_answered_by(member)

    def replaced(self) -> list[Member]:
        """Return the counted members that answer no reads any more: their host said so, or began anew."""
        return sorted(m for m in self.counted if self.stage(m) is Stage.DRAINING or self._has_successor(m))

    def _is_next(self, member: Member) -> bool:
        is_willing = self.stage(member) in {Stage.JOINING, Stage.SERVING}
        is_alone = all(other.host != member.host for other in self.counted)
        return is_willing and is_alone and not self._has_successor(member) and not self._is_evicted(member)

    def _has_successor(self, member: Member) -> bool:
        return any(m.host == member.host and m.incarnation > member.incarnation for m in self._heartbeats)
