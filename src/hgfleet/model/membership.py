"""A mirror's brain: when it may answer reads, and up to where.

Promises: counted first, served last: it serves only after it read that it is counted and has exposed
everything that may have been called visible before; a lease that is over is never renewed; what is exposed
never falls.
Does not: apply, expose, report or ask the time; the applier does, and hands the times in.
"""

from __future__ import annotations

from collections.abc import Callable

from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Member, Report, Stage
from hgfleet.model.ids import RepoId, Seq


def exposable(applied: Seq, exposed: Seq, watermark: Seq) -> Seq:
    """Return up to where a copy shows its state: as far as all have applied, and never less than before."""
    return max(exposed, min(applied, watermark))


class Membership:
    """One incarnation of a mirror, from its join on. Times are of one clock that goes on during a suspend."""

    def __init__(self, member: Member, stale_seconds: float) -> None:
        self.member = member
        self.stage = Stage.JOINING
        self._stale_seconds = stale_seconds
        self._sent_at: float | None = None  # of the last acknowledged heartbeat
        self._is_lapsed = False
        self._parked: set[RepoId] = set()
        self._parks: dict[RepoId, int] = {}

    @property
    def lease_ends_at(self) -> float:
        """When it has to refuse reads unless something is acknowledged; readers compare with their clock."""
        return 0.0 if self._sent_at is None else self._sent_at + self._stale_seconds

    def is_lapsed(self, now: float) -> bool:
        """Whether the lease was over at some time; then only the next incarnation may join."""
        if self._sent_at is not None and now >= self.lease_ends_at:
            self._is_lapsed = True
        return self._is_lapsed

    def is_over(self, view: FleetView, now: float) -> bool:
        """Whether this incarnation has ended: lapsed, evicted or drained."""
        return self.is_lapsed(now) or view.is_out(self.member) or self.stage is Stage.DRAINING

    def acknowledge(self, sent_at: float, now: float) -> bool:
        """Take the log's answer to a heartbeat sent at `sent_at`; False when it came too late to renew."""
        if self.is_lapsed(now) or now >= sent_at + self._stale_seconds:
            return False
        self._sent_at = max(sent_at, self._sent_at or sent_at)
        return True

    def is_ready(self, now: float) -> bool:
        """Whether the load balancer may route to it; asked with the clock of that very moment."""
        return self.stage is Stage.SERVING and not self.is_lapsed(now) and self._sent_at is not None

    def may_serve(self, view: FleetView, exposed: Callable[[RepoId], Seq]) -> bool:
        """Whether it is counted and has exposed every watermark before that, parked ones left out."""
        return view.is_counted(self.member) and all(
            exposed(repository) >= seq or not view.is_answered(self.member, repository)
            for repository, seq in view.due(self.member).items()
        )

    def report(
        self, repository: RepoId, applied: Seq, exposed: Seq, parked: str = "", *, is_deleted: bool = False
    ) -> Report:
        """Return what to say of a copy, and note if it is parked: refuse its reads before saying so."""
        if parked and repository not in self._parked:
            self._parks[repository] = self._parks.get(repository, 0) + 1
        (self._parked.add if parked else self._parked.discard)(repository)
        parks = self._parks.get(repository, 0)
        return Report(self.member, repository, applied, exposed, parked, is_deleted, parks)

    def may_answer(self, view: FleetView, repository: RepoId, exposed: Seq) -> bool:
        """Whether reads of one repository may be answered.

        What was parked serves again only when it was read that the copy, in its newest recovery, is counted
        again, and all that was decided until then is exposed.
        """
        parks = self._parks.get(repository, 0)
        report = view.report(self.member, repository)
        if repository in self._parked or exposed < view.due(self.member).get(repository, 0):
            return False
        is_heard = report is not None and report.parks == parks and view.is_answered(self.member, repository)
        return is_heard or not parks

    def serve(self) -> None:
        """Begin to answer reads, after `may_serve`."""
        if self.stage is Stage.JOINING:
            self.stage = Stage.SERVING

    def drain(self) -> None:
        """Refuse reads for good; do so visibly *before* reporting it."""
        self.stage = Stage.DRAINING
