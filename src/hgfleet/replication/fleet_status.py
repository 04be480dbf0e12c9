"""What the state topic says, as plain values for people: members, lag per repository, parked copies.

Promises: JSON-ready; the worst lag comes first.
Does not: judge health or render pages.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hgfleet.model.feed_marks import FeedPlace
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import LifeSign, Member, Report
from hgfleet.model.ids import RepoId
from hgfleet.runtime import clock

MAX_LAGGING = 100  # repositories listed


def describe_fleet(view: FleetView) -> dict[str, Any]:
    """Describe the fleet as read so far."""
    reports = list(view.reports())
    return {
        "members": [_describe_member(view, member) for member in _members(view, reports)],
        "lag": _lag(view, reports)[:MAX_LAGGING],
        "parked": [
            {"host": r.member.host, "repository": r.repository, "reason": r.parked}
            for r in reports
            if r.parked
        ],
        "coordinator": _coordinator(view.sign),
        "feed": _feed(view.feed.place, view.sign),
    }


def _coordinator(sign: LifeSign | None) -> dict[str, Any] | None:
    """Describe who holds the claim by the last sign of it; None while there is none."""
    if sign is None:
        return None
    silent_seconds = max(clock.now() - sign.at, 0.0)
    return {
        "host": sign.host,
        "claim": sign.claim,
        "silent_seconds": round(silent_seconds, 1),
        "is_leaving": sign.is_leaving,
    }


def _feed(place: FeedPlace | None, sign: LifeSign | None) -> dict[str, Any] | None:
    """Describe the feed by its marks and the coordinator's last sign; None while there is no sign."""
    if sign is None:
        return None
    behind_seconds = max(clock.now() - sign.feed_behind_since, 0.0) if sign.feed_behind else 0.0
    return {
        "turn": place.turn if place else None,
        "offset": place.offset if place else None,
        "behind": sign.feed_behind,
        "behind_seconds": round(behind_seconds, 1),
    }


def _members(view: FleetView, reports: list[Report]) -> list[Member]:
    """Return the newest incarnation of every host that says something, and whoever is counted."""
    newest: dict[str, Member] = {}
    for member in {report.member for report in reports}:
        if member.host not in newest or newest[member.host] < member:
            newest[member.host] = member
    return sorted({*newest.values(), *view.counted})


def _describe_member(view: FleetView, member: Member) -> dict[str, Any]:
    heartbeat = view.heartbeat(member)
    return {
        "host": member.host,
        "incarnation": member.incarnation,
        "stage": heartbeat.stage.value if heartbeat else None,
        "release": heartbeat.release if heartbeat else "",
        "is_counted": view.is_counted(member),
    }


def _lag(view: FleetView, reports: list[Report]) -> list[dict[str, Any]]:
    """Return per repository how far counted members' exposure is behind the newest copy; none when level."""
    by_repository: dict[RepoId, list[Report]] = defaultdict(list)
    for report in reports:
        if not report.is_counted_out and view.is_counted(report.member):
            by_repository[report.repository].append(report)
    rows = [_lag_row(view, repository, found) for repository, found in by_repository.items()]
    return sorted((row for row in rows if row["lag"]), key=lambda row: (-row["lag"], row["repository"]))


def _lag_row(view: FleetView, repository: RepoId, reports: list[Report]) -> dict[str, Any]:
    newest = max(report.applied for report in reports)
    return {
        "repository": repository,
        "lag": newest - min(report.exposed for report in reports),
        "applied": newest,
        "watermark": view.watermark(repository),
        "hosts": {report.member.host: report.exposed for report in reports},
    }
