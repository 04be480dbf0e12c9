"""The session server's operations as jobs for forked children, with Mercurial preloaded.

Promises: after preload() a child needs nothing from disk but the repository; its environment is the one that
was fixed here, before Mercurial read it.
Does not: fork or listen (session_server).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError, RejectedError
from hgfleet.hgext import recovery, session_context
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.options import read_options
from hgfleet.hgext.rebuild import rebuild
from hgfleet.hgext.session_context import SessionPage
from hgfleet.hgext.session_fork import Header, Job
from hgfleet.hgext.session_preload import make_rehearsal, preload_mercurial
from hgfleet.hgext.session_request import CatchUpRequest, ServeRequest, parse_catch_up, parse_serve
from hgfleet.hgext.session_worker import Session, WorkerSetting
from hgfleet.model.frames import encode_frame, error_header

if TYPE_CHECKING:
    from hgfleet.hgext.session_server import SessionServerOptions


class SessionJobs:
    """What the server's operations run in a child; needs Mercurial loaded, so made after preload."""

    def __init__(self, server: SessionServerOptions) -> None:
        ui = preload_mercurial()
        options = read_options(ui)
        scratch = Path(options.spool_directory or server.repositories.parent) / "sessions"
        shutil.rmtree(scratch, ignore_errors=True)  # of a server that was killed
        scratch.mkdir(parents=True)
        self._rehearsal = make_rehearsal(ui, scratch / "rehearsal")
        self._setting = WorkerSetting(
            ui=ui,
            options=options,
            repositories=server.repositories,
            places_file=server.socket.with_name("sessions.places"),
            rights_socket=server.rights_socket,
            max_reads=server.max_reads,
            scratch=scratch,
        )

    @staticmethod
    def describe(header: Header) -> dict[str, Any]:
        """Return what `status` and the log say about a request. Raises RejectedError for a bad one."""
        is_serve = header.get("op") == "serve"
        return parse_serve(header).description if is_serve else parse_catch_up(header).description

    def warm_up(self) -> None:
        """Have a directory, and do once what a push does."""
        session_context.prepare(self._setting.scratch)
        if self._rehearsal is not None:
            self._rehearsal.run()

    def make(self, header: Header, descriptors: Sequence[int]) -> Job:
        """Return the job of a request that was described before."""
        if header["op"] == "serve":
            return self._serve(parse_serve(header), descriptors)
        return self._catch_up(parse_catch_up(header), *descriptors)

    def _serve(self, request: ServeRequest, descriptors: Sequence[int]) -> Job:
        def run(page: SessionPage) -> int:
            session_context.watch(page)
            return Session(self._setting, request).run()

        first, second, third = descriptors
        return Job(run, (first, second, third))

    def _catch_up(self, request: CatchUpRequest, reply: int) -> Job:
        """Return the job that brings one copy to the end of its log and answers on the connection itself."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        return Job(lambda _page: self._answer_catch_up(request, reply), (null, 2, 2))

    def clean_up(self, pid: int) -> None:
        """Remove what a worker that has ended left of its upload."""
        shutil.rmtree(self._setting.scratch / str(pid), ignore_errors=True)

    def _answer_catch_up(self, request: CatchUpRequest, reply: int) -> int:
        try:
            answer = {"ok": True, **self._end_of_log(request)}
        except FleetError as error:
            answer = error_header(error)
        with socket.socket(fileno=reply) as connection:
            connection.setblocking(True)
            connection.sendall(encode_frame(answer))
        return 0

    def _end_of_log(self, request: CatchUpRequest) -> dict[str, Any]:
        setting = self._setting
        copy = Copy(setting.ui.copy(), setting.directory(request.repository))
        agent = LogAgentClient(Path(setting.options.agent_socket))
        try:
            if request.is_rebuild:
                rebuild(copy, request.repository, agent)
            standing = recovery.bring_up_to_date(copy, request.repository, agent)
        except RejectedError as error:
            state = copy.state
            if error.code != "repo.deleted" or state is None:
                raise
        else:
            state = standing.state
            if standing.problem is not None:
                raise standing.problem
        return {
            "seq": state.seq,
            "digest": state.digest,
            "fingerprint": state.fingerprint.to_json(),
            "settings": state.settings.to_json(),
        }
