"""The applier: brings a mirror's copies to the end of the log and shows them up to where everybody is.

One thread decides: it hears the log, the state topic, its lanes and its publisher through one inbox, and
after every turn of its loop says on the state topic what changed. Lanes read and apply, each with a worker
process of its own.

Promises: repositories advance in parallel and one never waits for another; nothing is exposed beyond its
watermark; a repository that cannot be applied is refused here first and reported then, and comes back by
itself when it is whole; killed at any point, the next run goes on from what is on disk.
Does not: import Mercurial (the workers do), serve HTTP, or need the log for what is already exposed.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from hgfleet.adapters.agent_answers import Advanced, LogSnapshot, StateEnd, StateRecords
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.errors import TransientError
from hgfleet.model.fleet_records import Report, Stage, Watermark, is_report
from hgfleet.model.ids import CATALOGUE, HostName, RepoId, Seq
from hgfleet.replication import mirror_disk
from hgfleet.replication.mirror_account import MirrorAccount
from hgfleet.replication.mirror_copies import Copies, Copy
from hgfleet.replication.mirror_inbox import Inbox
from hgfleet.replication.mirror_inputs import (
    Connected,
    Heard,
    Lost,
    Source,
    end_process_when_a_thread_dies,
    follow_log,
    follow_state,
)
from hgfleet.replication.mirror_lanes import (
    Applied,
    CatalogueRead,
    CatalogueTask,
    Failed,
    Inspected,
    Lane,
    Outcome,
)
from hgfleet.replication.mirror_member import MirrorMember
from hgfleet.replication.mirror_paths import MirrorPaths
from hgfleet.replication.mirror_reports import Answer, NotPublished, Published, Reports, is_routine
from hgfleet.replication.mirror_showing import MirrorShowing
from hgfleet.replication.mirror_state import MirrorState
from hgfleet.replication.mirror_tasks import LaneTasks
from hgfleet.replication.mirror_work import MirrorWork
from hgfleet.replication.mirror_worker import ApplyWorker, worker_program
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults

TURN_SECONDS = 0.2  # the loop looks at the clock at least so often
LEAVE_SECONDS = 3.0  # for finishing what is in hand when told to stop
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ApplierOptions:
    """What an applier needs to know."""

    host: HostName
    repositories: Path  # <host>/repos
    spool: Path  # <host>/spool
    catalogue: Path  # <host>/catalogue.sqlite
    serving: Path  # <host>/serving.json
    agent_socket: Path
    worker_command: tuple[str, ...]  # runs hgext.apply_worker on its standard input and output
    worker_environment: Mapping[str, str]
    workers: int = 2
    self_stale_seconds: float = 5.0
    notice_seconds: float = 0.0  # until the load balancer has noticed that a mirror is not ready
    is_member: bool = True  # False on a standby: it serves nobody, so nobody waits for it
    release: str = ""
    removal_grace_seconds: float = 30.0  # a deleted repository's readers have so long to finish
    answer_seconds: float = 900.0  # a worker that says nothing for so long is replaced
    faults: Faults = NO_FAULTS


def run_applier(options: ApplierOptions, stop: threading.Event) -> None:
    """Run the applier's process until `stop` is set; then refuse, report and return."""
    end_process_when_a_thread_dies()
    Applier(options).run(stop)


class Applier:
    """The deciding thread and everything it decides about."""

    def __init__(self, options: ApplierOptions) -> None:
        self._options = options
        self._inbox: Inbox[Heard | Outcome | Answer] = Inbox()
        self._tasks = LaneTasks()
        self._catalogue = MirrorCatalogue(options.catalogue)
        self._copies = Copies()
        self._paths = MirrorPaths(self._catalogue)
        self._state = MirrorState()
        self._is_log_known = False
        self._working = 0
        self._reports = Reports(self._client(), self._put_answer)
        self._member = MirrorMember(
            options.host,
            options.serving,
            options.self_stale_seconds,
            self._reports,
            options.notice_seconds,
        )
        self._account = MirrorAccount(self._copies, self._paths, self._member, self._reports)
        self._work = MirrorWork(
            options.repositories, self._copies, self._catalogue, self._tasks, self._watermark
        )
        self._showing = MirrorShowing(
            options.repositories, self._copies, self._paths, options.faults, self._park
        )

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        self._start()
        while not stop.is_set():
            self._hear(self._wait_seconds())
            self._turn(clock.boottime())
        self._leave()

    def _client(self) -> LogAgentClient:
        return LogAgentClient(self._options.agent_socket)

    def _watermark(self, repository: RepoId) -> Seq:
        return self._state.view.watermark(repository)

    def _park(self, copy: Copy, reason: str) -> None:
        self._work.park(copy, reason, clock.boottime())
        self._work.changed.add(copy.repository)

    # ---- beginning and end

    def _start(self) -> None:
        options = self._options
        self._member.restart(options.release)
        parked = self._catalogue.parked()
        for copy in mirror_disk.find_copies(options.repositories):
            copy.parked = parked.get(copy.repository, "")
            self._copies.add(copy)
            self._copies.wake(copy)
        for number in range(options.workers):
            self._start_lane(f"lane-{number}")
        self._reports.start()
        follow_log(self._client(), self._inbox.put)
        follow_state(self._client(), self._put_state)

    def _start_lane(self, name: str) -> None:
        options = self._options
        program = worker_program(options.worker_command, dict(options.worker_environment))
        worker = ApplyWorker(program, options.answer_seconds)
        next_task = partial(self._tasks.get, name)
        Lane(name, worker, self._client(), options.spool, next_task, self._inbox.put).start()

    def _leave(self) -> None:
        """Refuse first, then say so, then finish what the lanes have in hand."""
        try:
            self._member.drain()
        except OSError as error:
            _log.warning("applier.serving-file", reason=str(error))
        ends_at = clock.boottime() + LEAVE_SECONDS
        while clock.boottime() < ends_at and (self._working or not self._reports.is_idle):
            self._reports.flush(clock.boottime())
            self._hear(TURN_SECONDS / 10)
        _log.info("applier.stopped", is_reported=self._reports.is_idle)

    # ---- the loop

    def _put_answer(self, answer: Answer) -> None:
        """Take the publisher's word; that reports were taken may wait while there is nothing more to say."""
        self._inbox.put(answer, may_wait=True)
        if self._reports.has_waiting or not is_routine(answer):  # asked last: or what is said now would wait
            self._inbox.wake()

    def _put_state(self, heard: Heard) -> None:
        """Take news of the state topic; reports, most often our own, change nothing here by themselves."""
        is_reports = isinstance(heard, StateRecords) and all(is_report(item.key) for item in heard.records)
        self._inbox.put(heard, may_wait=is_reports)

    def _wait_seconds(self) -> float:
        """Return how long nothing has to be done unless something is heard."""
        if self._reports.has_waiting and len(self._inbox):  # perhaps the answer that lets the next batch go
            return 0.0
        has_room = self._working < self._options.workers
        next_copy_at = self._copies.next_time() if has_room else None
        times = (next_copy_at, self._reports.next_time(), self._member.next_time())
        now = clock.boottime()
        return max(0.0, min([TURN_SECONDS, *(at - now for at in times if at is not None)]))

    def _hear(self, timeout_seconds: float) -> None:
        """Take everything that was said, waiting for what does not wait."""
        for heard in self._inbox.take(timeout_seconds):
            self._take(heard)

    def _take(self, heard: Heard | Outcome | Answer) -> None:
        now = clock.boottime()
        match heard:
            case Applied() | Inspected() | Failed() | CatalogueRead():
                self._take_outcome(heard, now)
            case Published() | NotPublished():
                self._account.settle(heard, now)
            case StateRecords():
                self._take_records(heard)
            case StateEnd():
                self._state.take_end(heard)
                self._showing.consider_all()
                self._say_missing()
            case LogSnapshot() | Advanced():
                self._take_log(heard)
            case Connected() | Lost():
                self._take_link(heard)

    def _turn(self, now: float) -> None:
        """Do everything that follows from what was heard."""
        self._showing.turn(self._state.view, now)
        self._showing.allow_removals(self._options.removal_grace_seconds, now)
        self._live(now)
        self._account.say(self._work.changed | self._showing.changed)
        self._work.changed.clear()
        self._showing.changed.clear()
        self._hand_out(now)
        self._reports.flush(now)

    # ---- what was heard

    def _take_link(self, heard: Connected | Lost) -> None:
        if isinstance(heard, Lost):
            _log.warning("applier.agent-lost", stream=heard.source.value, reason=heard.reason)
        if heard.source is Source.LOG:
            self._is_log_known = False
        elif isinstance(heard, Connected):
            self._state.begin()
        else:
            self._state.lose()

    def _take_log(self, heard: LogSnapshot | Advanced) -> None:
        if isinstance(heard, Advanced):
            if heard.repository == CATALOGUE:
                self._paths.last = max(self._paths.last, heard.seq)
            else:
                self._copies.advance(heard.repository, heard.partition, heard.seq)
            return
        self._paths.begin_again(heard.catalogue_seq)
        self._copies.restart({name: standing.seq for name, standing in heard.repositories.items()})
        for repository, standing in heard.repositories.items():
            copy = self._copies.get(repository)
            if copy is None and standing.is_deleted:  # nobody needs what it was
                gone = Copy(repository, standing.partition, applied=standing.seq, is_deleted=True)
                self._copies.add(gone)
                self._work.changed.add(repository)
            copy = self._copies.advance(repository, standing.partition, standing.seq)
            copy.partition, copy.target = standing.partition, standing.seq
        for copy in self._copies:
            if copy.is_ahead and not copy.is_deleted:
                _log.error("applier.log-behind", repository=copy.repository, seq=copy.applied, log=copy.last)
        self._is_log_known = True
        self._say_missing()

    def _say_missing(self) -> None:
        """Say what the state topic lacks: it may have been lost or cut together with the log."""
        if self._is_log_known and self._state.is_known:
            self._account.say_missing(self._state.view)

    def _take_records(self, heard: StateRecords) -> None:
        for record, item in self._state.take(heard):
            match record:
                case Watermark():
                    self._showing.consider(record.repository)
                case Report():
                    self._account.check_own(record, item)

    def _take_outcome(self, outcome: Outcome, now: float) -> None:
        self._working -= 1
        match outcome:
            case CatalogueRead() | Failed(task=CatalogueTask()):
                self._paths.settle(outcome, now)
                self._work.changed.add(CATALOGUE)
            case _:
                self._work.take(outcome, now)
                self._showing.consider(outcome.task.repository)

    # ---- the seat in the fleet

    def _live(self, now: float) -> None:
        """Join, serve and beat as the membership's rules have it; what the disk refused is done next turn."""
        try:
            self._step(now)
        except (OSError, TransientError) as error:
            _log.warning("applier.not-written", reason=str(error))

    def _step(self, now: float) -> None:
        if not self._options.is_member or self._is_drained(now):
            return
        membership = self._member.membership
        if membership is None or membership.is_over(self._state.view, now):
            self._member.rest(now)
            if self._may_join() and self._member.is_left(now):
                self._join(now)
            return
        if membership.stage is Stage.JOINING and membership.may_serve(self._state.view, self._exposed):
            self._member.serve(now)
            _log.info("applier.serving", incarnation=membership.member.incarnation)
        for copy in self._work.returning():
            if membership.may_answer(self._state.view, copy.repository, copy.exposed):
                self._work.unpark(copy)
        self._member.beat(now)

    def _is_drained(self, now: float) -> bool:
        """Stand aside for as long as an operator wants that; return whether one does."""
        wish = self._state.view.wish(self._options.host)
        if wish is None or not wish.is_drained:
            return False
        if self._member.stand_aside(now):
            _log.info("applier.drained", identity=wish.identity)
        return True

    def _may_join(self) -> bool:
        """Whether this host is where the log was when it connected: before, it would only be waited for."""
        is_known = self._is_log_known and self._state.is_known
        return is_known and self._paths.is_read and all(copy.is_level for copy in self._copies)

    def _join(self, now: float) -> None:
        member = self._member.join(self._state.view, now)
        _log.info("applier.joining", incarnation=member.incarnation)
        self._account.say_all()
        self._member.beat(now)

    def _exposed(self, repository: RepoId) -> Seq:
        if repository == CATALOGUE:
            return self._paths.exposed
        copy = self._copies.get(repository)
        return copy.exposed if copy is not None else Seq(0)

    def _hand_out(self, now: float) -> None:
        room = self._options.workers - self._working
        task = self._paths.next_task(now) if room > 0 else None
        if task is not None:
            self._tasks.put(task)
            self._working, room = self._working + 1, room - 1
        self._working += self._work.hand_out(room, now)
