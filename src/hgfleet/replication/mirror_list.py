"""Each mirror as an operator asks for it: what it does, how far behind it is, what it waits for.

Promises: JSON-ready; a mirror that nobody has heard of is listed, too.
Does not: ask the mirrors: this is what the state topic says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Member, Stage
from hgfleet.model.ids import HostName, RepoId, Seq


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """One mirror; `stage` is absent, joining, serving, draining or drained."""

    host: HostName
    stage: str
    is_counted: bool
    lag: int  # messages of the repository that it is furthest behind in
    parked: tuple[RepoId, ...]
    release: str
    waits_for: str  # "" in health

    @property
    def is_in_service(self) -> bool:
        """Whether it answers reads and everybody waits for it."""
        return self.is_counted and self.stage == Stage.SERVING


def list_mirrors(view: FleetView, names: Iterable[HostName]) -> list[MirrorRow]:
    """Describe the mirrors that the configuration names, in its order."""
    newest = _newest_seqs(view)
    return [_row(view, name, newest) for name in names]


def why_not_drain(rows: Iterable[MirrorRow], name: HostName, floor: int) -> str:
    """Return what taking this mirror out would do to readers, "" when nothing."""
    left = [row for row in rows if row.is_in_service and row.host != name]
    if not left:
        return "no mirror would be left in service, and readers would be refused"
    if len(left) < floor:
        return f"{len(left)} would be left in service, below membership.floor: nothing new would be shown"
    return ""


def _row(view: FleetView, host: HostName, newest: dict[RepoId, Seq]) -> MirrorRow:
    member = view.newest_member(host)
    heartbeat = view.heartbeat(member) if member else None
    reports = [report for report in view.reports() if report.member == member]
    stage, waits_for = _stage(view, host, member)
    lags = [newest[r.repository] - r.exposed for r in reports if not r.is_counted_out]
    return MirrorRow(
        host=host,
        stage=stage,
        is_counted=member is not None and view.is_counted(member),
        lag=max(lags, default=0),
        parked=tuple(sorted(report.repository for report in reports if report.parked)),
        release=heartbeat.release if heartbeat else "",
        waits_for=waits_for,
    )


def _stage(view: FleetView, host: HostName, member: Member | None) -> tuple[str, str]:
    wish = view.wish(host)
    is_counted = member is not None and view.is_counted(member)
    if wish is not None and wish.is_drained:
        resume = f"hgfleet mirror resume {host}"
        return ("draining", "to be counted out") if is_counted else ("drained", resume)
    stage = view.stage(member) if member is not None else None
    if member is None or stage is None:
        return "absent", "its applier to join: hgfleet run mirror"
    if stage is not Stage.JOINING:
        return stage.value, "" if is_counted else "its next incarnation to join"
    if is_counted:
        return stage.value, "what was visible before it was counted to be exposed"
    behind = view.behind(member)
    return stage.value, f"{behind} repositories to be applied" if behind else "the coordinator to count it"


def _newest_seqs(view: FleetView) -> dict[RepoId, Seq]:
    newest: dict[RepoId, Seq] = defaultdict(lambda: Seq(0))
    for report in view.reports():
        newest[report.repository] = max(newest[report.repository], report.applied)
    return newest
