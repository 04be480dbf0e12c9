"""A mirror's seat in the fleet: its incarnations, its lease, and what its web workers are told about both.

Promises: the incarnation is on disk before anybody hears of it, and so is a refusal before it is reported;
the lease counts from the sending of what the log acknowledged; one that is over is never renewed.
Does not: decide when to join or serve (model.membership, asked by the applier).
"""

from __future__ import annotations

from pathlib import Path

import structlog

from hgfleet.adapters.serving_file import read_serving, write_serving
from hgfleet.model.features import FEATURE_LEVEL
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import Heartbeat, Member, Stage
from hgfleet.model.ids import HostName
from hgfleet.model.membership import Membership
from hgfleet.replication.mirror_reports import Published, Reports

BEATS_PER_LEASE = 5
_log = structlog.get_logger()


class MirrorMember:
    """This host as the others see it. What writes serving.json raises OSError when it can't."""

    def __init__(
        self, host: HostName, file: Path, stale_seconds: float, reports: Reports, notice_seconds: float = 0.0
    ) -> None:
        """`notice_seconds`: how long after a lease's end the load balancer may not have noticed it yet."""
        self._host = host
        self._file = file
        self._stale_seconds = stale_seconds
        self._notice_seconds = notice_seconds
        self._reports = reports
        self._release = ""
        self._next_beat_at = 0.0
        self._incarnation = 0
        self._stage: Stage | None = None  # as the web workers are told
        self._has_served = False
        self.membership: Membership | None = None

    def restart(self, release: str) -> None:
        """Take over from the run before: not ready, but a last resort if it was serving."""
        self._release = release
        before = read_serving(self._file)
        is_serving = before is not None and before.stage is Stage.SERVING
        self._has_served = is_serving or (before is not None and before.has_served)
        self._incarnation = before.incarnation if before is not None else 0
        self._write(Stage.SERVING if is_serving else Stage.JOINING, 0.0)

    @property
    def member(self) -> Member | None:
        """The incarnation that has joined, None before the first."""
        return self.membership.member if self.membership is not None else None

    def is_left(self, now: float) -> bool:
        """Whether the load balancer has sent readers elsewhere since the lease ended, if one did.

        When all mirrors lost the log at once it has nobody but the last resort, which answers while it joins;
        whoever joins before it knows that refuses reads that nobody else answers.
        """
        lapsed = self.membership
        if lapsed is None or lapsed.stage is not Stage.SERVING or not lapsed.is_lapsed(now):
            return True
        return now >= lapsed.lease_ends_at + self._notice_seconds

    def join(self, view: FleetView, now: float) -> Member:
        """Refuse reads, then begin the next incarnation; its reports are to be said after this."""
        self._incarnation = max(self._incarnation + 1, view.next_incarnation(self._host))
        self._write(Stage.JOINING, 0.0)
        self._reports.forget()
        member = Member(self._host, self._incarnation)
        self.membership = Membership(member, self._stale_seconds)
        self._next_beat_at = now
        return member

    def serve(self, now: float) -> None:
        """Answer reads from now on."""
        if self.membership is None:
            return
        self._has_served = True
        self._write(Stage.SERVING, self.membership.lease_ends_at)
        self.membership.serve()
        self._next_beat_at = now

    def abandon(self) -> None:
        """Go on as the next incarnation: a word of this one may still land when it is not true any more."""
        if self.membership is not None and self.membership.stage is not Stage.DRAINING:
            self.membership = None

    def drain(self) -> None:
        """Refuse reads for good, then say so."""
        self._write(Stage.DRAINING, 0.0)
        if self.membership is not None:
            self.membership.drain()
            self._say()

    def stand_aside(self, now: float) -> bool:
        """Drain because an operator wants it, and stay so; return whether that is new."""
        is_new = self._stage is not Stage.DRAINING
        if is_new:
            self.drain()
        self.rest(now)
        return is_new

    def rest(self, now: float) -> None:
        """Have nothing to say for a while: this incarnation is over, the next one can't begin yet."""
        self._next_beat_at = now + self._stale_seconds / BEATS_PER_LEASE

    def beat(self, now: float) -> None:
        """Say that we live, when it is time."""
        if self.membership is None or now < self._next_beat_at:
            return
        self._next_beat_at = now + self._stale_seconds / BEATS_PER_LEASE
        self._say()

    def next_time(self) -> float | None:
        """Return when the next heartbeat is due."""
        return self._next_beat_at if self.membership is not None else None

    def acknowledge(self, answer: Published, now: float) -> None:
        """Renew the lease if the batch carried our heartbeat."""
        membership = self.membership
        if membership is None or Heartbeat(membership.member, Stage.JOINING).key not in answer.values:
            return
        if membership.acknowledge(answer.sent_at, now) and membership.stage is Stage.SERVING:
            self._renew(membership.lease_ends_at)

    def _renew(self, lease_ends_at: float) -> None:
        """Tell the web workers; where the disk refuses that, the old lease ends and they turn unready."""
        try:
            self._write(Stage.SERVING, lease_ends_at)
        except OSError as error:
            _log.warning("applier.lease-not-written", reason=str(error))

    def _say(self) -> None:
        if self.membership is not None:
            member, stage = self.membership.member, self.membership.stage
            word = Heartbeat(member, stage, self._release, FEATURE_LEVEL)
            self._reports.say(word.key, dict(word.value))

    def _write(self, stage: Stage, lease_ends_at: float) -> None:
        write_serving(self._file, stage, self._incarnation, lease_ends_at, has_served=self._has_served)
        self._stage = stage
