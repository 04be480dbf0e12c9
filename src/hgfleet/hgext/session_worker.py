"""What a forked session worker does: one client, one repository, from identity to exit status.

Promises: the worker's environment, identity and configuration are ours, nothing of them the client's; before
the hello the copy is at the end of its log; a write passes the access rule, a look at the disk and at the log
agent before its data is asked for, and the access rule again before the log has it. Whatever goes wrong, the
client reads one line, never a traceback.
Does not: fork, watch itself, or authenticate (session_server, the SSH front).
"""

from __future__ import annotations

import logging
import os
import resource
import select
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mercurial import error, wireprotoserver

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.hgext import identity, recovery, seqfile, session_bundles, session_context
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.options import Options
from hgfleet.hgext.session_lines import recorded_lines, visibility_line
from hgfleet.hgext.session_permissions import Need, guard_commands
from hgfleet.hgext.session_places import Places
from hgfleet.hgext.session_request import ServeRequest
from hgfleet.hgext.session_rights import SessionRights
from hgfleet.model.access import write_access
from hgfleet.model.client_line import client_line

_READ_WAIT_SECONDS = 5.0
_AGENT_SECONDS = 5.0
_LEAST_FREE_BYTES = 1024 * 1024
_LEAST_FREE_FILES = 100
_MOST_MEMORY_BYTES = 4 * 1024**3  # a client names the sizes that Mercurial reads
_CLIENT_GONE = 128 + signal.SIGHUP
_log = logging.getLogger("hgfleet.sessions")


@dataclass(frozen=True, slots=True)
class WorkerSetting:
    """What every worker of this server has in common."""

    ui: Any
    options: Options
    repositories: Path
    places_file: Path
    rights_socket: Path
    max_reads: int
    scratch: Path  # one directory per worker, for uploads; the server removes it

    def directory(self, repository: str) -> Path:
        """Return `repos/<RepoId>`."""
        return self.repositories / repository


class Session:
    """One client's session in this process."""

    def __init__(self, setting: WorkerSetting, request: ServeRequest) -> None:
        self._setting = setting
        self._request = request
        self._agent = LogAgentClient(Path(setting.options.agent_socket), _AGENT_SECONDS)
        self._rights = SessionRights(setting.rights_socket, request)
        self._places = Places(setting.places_file, setting.max_reads)
        self._root = Path()
        self._repo: Any = None
        self._problem: FleetError | None = None  # why the copy may only be read
        self._unseen: int | None = None  # accepted, and the client has not heard how far it is visible
        self._stop = _StopRequest(self._tell_visibility)

    def run(self) -> int:
        """Serve the client on descriptors 0, 1 and 2; return the exit status."""
        self._stop.watch()
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY_BYTES, _MOST_MEMORY_BYTES))
        self._take_identity()
        try:
            self._open()
            self._serve()
        except (FleetError, error.Abort, OSError) as failure:
            return _tell(failure)
        except MemoryError:
            return _tell(RejectedError("session.memory", "this needs more memory than a session may have"))
        except KeyboardInterrupt:
            return _CLIENT_GONE
        except SystemExit:
            return _tell(TransientError("sessions.stopping", "the server is stopping"))
        except Exception:  # the outermost frame: the client gets a line, the log the traceback
            if _is_client_gone():  # what it left unfinished is no defect of ours
                _log.info("session.cut-short", extra=self._request.description, exc_info=True)
                return _CLIENT_GONE
            _log.exception("session.failed", extra=self._request.description)
            _write(f"abort: internal error, id {self._request.trace}")
            return 70
        return 0

    def _take_identity(self) -> None:
        request = self._request
        os.environ.update(USER=request.account, LOGNAME=request.account, HGUSER=request.pusher)
        os.environ["SSH_CLIENT"] = f"{request.client_address} 0 22"
        identity.assume(request.account, request.groups, request.trace, pusher=request.pusher)
        with suppress(OSError):  # on a full disk; reading goes on
            tempfile.tempdir = str(session_context.introduce(self._setting.scratch, request.account))

    def _open(self) -> None:
        """Bring the copy to the end of its log; one that can't be may still be read."""
        setting, request = self._setting, self._request
        copy = Copy(setting.ui.copy(), setting.directory(request.repository))
        self._problem = recovery.bring_up_to_date(copy, request.repository, self._agent).problem
        copy.forget()
        self._repo = copy.repo
        agent_socket = Path(setting.options.agent_socket)
        session_bundles.offer(self._repo, request.repository, agent_socket, request.place)
        self._root = Path(os.fsdecode(self._repo.root))

    def _serve(self) -> None:
        session_context.require_before_append(self._check_access)
        guard_commands(self._check, self._after_write)
        wireprotoserver.sshserver(self._repo.ui, self._repo).serveuntil(self._stop)

    # ---- before and after each command

    def _check(self, need: Need) -> None:
        self._stop.is_idle = False
        self._places.give_back()
        if need is Need.TRANSFER:
            self._places.take(_READ_WAIT_SECONDS)
        elif need is Need.WRITE:
            self._check_access()
            if self._problem is not None:
                raise self._problem
            self._check_disk()
            self._check_agent()

    def _check_access(self) -> None:
        groups = self._rights.groups()
        state = seqfile.read(self._root)
        writers = state.settings.writers if state is not None else ()
        write_access(True, groups, writers).require("access.write", "you may not push to this repository")

    def _check_disk(self) -> None:
        free = os.statvfs(self._root)
        if free.f_bavail * free.f_frsize < _LEAST_FREE_BYTES or (
            free.f_files > 0 and free.f_favail < _LEAST_FREE_FILES
        ):
            raise TransientError("disk.full", "the server's disk is full", hint="tell its operators")

    def _check_agent(self) -> None:
        last = self._agent.last(self._request.repository)
        if last.is_deleted:
            raise RejectedError("repo.unknown", "the repository was deleted")
        if not last.serving_epoch or last.parked:
            raise TransientError("log.not-serving", "this host does not accept pushes now", hint=last.parked)
        self._agent.require_takes_changes(self._request.repository)

    def _after_write(self) -> None:
        changes = session_context.take_recorded()
        if not changes:
            return
        options, request = self._setting.options, self._request
        for line in recorded_lines(f"{options.site_url.rstrip('/')}/{request.path}", changes):
            _write(line)
        if options.visible_wait_seconds > 0:
            self._unseen = changes[-1].seq

    def _tell_visibility(self) -> None:
        """Wait for the mirrors while the client, which has its answer, does its own share of a push."""
        seq, self._unseen = self._unseen, None
        if seq is not None:
            _write(self._wait_visible(seq))

    def _wait_visible(self, seq: int) -> str:
        seconds = self._setting.options.visible_wait_seconds
        try:
            seen = self._agent.wait_visible(self._request.repository, seq, seconds)
        except FleetError:
            return "accepted; how far it is replicated is not known"
        return visibility_line(is_visible=seen.is_visible, mirrors=seen.mirrors, late=seen.late)


class _StopRequest:
    """SIGTERM: finish the command in hand; SIGHUP: the client is gone, give up.

    Stands in for the event that Mercurial's loop asks before it reads each command.
    """

    def __init__(self, after_answer: Callable[[], None]) -> None:
        self.is_idle = False
        self._is_set = False
        self._after_answer = after_answer

    def watch(self) -> None:
        """Catch the signals."""
        signal.signal(signal.SIGTERM, self._finish)
        signal.signal(signal.SIGHUP, self._give_up)

    def is_set(self) -> bool:
        """Tell Mercurial's loop whether to end; from here to the next command's check nothing is in hand.

        It asks when a command's answer has been sent: what may follow the answer is done first.
        """
        self._after_answer()
        self.is_idle = True
        return self._is_set

    def _finish(self, _number: int, _frame: Any) -> None:
        self._is_set = True
        if self.is_idle:
            raise SystemExit

    def _give_up(self, _number: int, _frame: Any) -> None:
        raise error.SignalInterrupt


def _tell(failure: BaseException) -> int:
    """Write the one line that the client reads about a failure; return the exit status."""
    if isinstance(failure, FleetError):
        _write(client_line(failure))
        return failure.exit_code
    if isinstance(failure, error.Abort):
        _write(failure.format().decode("utf-8", "replace").rstrip("\n"))
        return 255
    if _is_client_gone():
        return _CLIENT_GONE
    reason = (
        failure.strerror if isinstance(failure, OSError) and failure.strerror else "input or output failed"
    )
    _log.error("session.failed", extra={"reason": str(failure)})
    _write(f"abort: {reason}")
    return 75


def _write(line: str) -> None:
    try:
        sys.stderr.buffer.write(line.encode(errors="replace") + b"\n")
        sys.stderr.buffer.flush()
    except OSError:
        return


def _is_client_gone() -> bool:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(2, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
