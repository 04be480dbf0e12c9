"""The session server: a preloaded process that forks one worker per SSH session.

Nine tenths of a push over SSH is the start of a Python interpreter; here it is paid once. The SSH front hands
over a session's three descriptors and gets the exit status back (docs/design/sessions.md).

Promises: Mercurial is imported, our extension is loaded and seen to be loaded before the first session, or
the process does not start (fail closed). Garbage on the socket costs its sender the connection and nothing
else. A front that hangs up takes its worker with it. SIGTERM: no new sessions, the commands in hand are
finished, exit 0.
Does not: authenticate people, decide access (gate, session_permissions) or read what is said in a session.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgfleet.adapters.location_files import LocationOptions, Locations
from hgfleet.errors import ConfigError, InvariantError, PoisonError, RejectedError, TransientError
from hgfleet.hgext.session_children import Child, Children, Ended
from hgfleet.hgext.session_connection import Connection, is_same_user
from hgfleet.model.frames import Frame, error_header
from hgfleet.runtime import clock

if TYPE_CHECKING:
    from hgfleet.hgext.session_jobs import SessionJobs

_TICK_SECONDS = 0.25
_MAX_CATCH_UPS = 16
_PROCESSES_PER_PLACE = 2  # one that is done and not gone yet keeps nobody out, but has a bound as well
_REQUEST_SECONDS = 10.0  # a connection that has asked for nothing by then is dropped
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger("hgfleet.sessions")


@dataclass(frozen=True, slots=True)
class SessionServerOptions:
    """Where the session server finds everything, and its limits; the rest is in the hgrc."""

    socket: Path
    rights_socket: Path  # where the SSH front tells what an account may do now
    hgrc: Path  # the only Mercurial configuration; must load hgfleet.hgext.fleet
    repositories: Path  # one directory per repository id
    max_sessions: int = 64
    max_connections: int = 200  # to the socket, sessions included
    max_reads: int = 16  # sessions that may send history to their clients at once
    hangup_grace_seconds: float = 5.0
    stop_grace_seconds: float = 15.0
    locations: LocationOptions = LocationOptions()


def run_session_server(options: SessionServerOptions) -> int:
    """Preload, listen, serve until SIGTERM; return 0. Raises ConfigError when it can't start."""
    _fix_environment(options.hgrc)
    from hgfleet.hgext.session_jobs import SessionJobs  # imports Mercurial, which reads the environment

    return SessionServer(options, SessionJobs(options)).run()


def _fix_environment(hgrc: Path) -> None:
    """Leave nothing of the environment that we were started in but what finds programs and faults."""
    kept = {name: os.environ[name] for name in ("PATH", "HGFLEET_FAULTS") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HGRCPATH=str(hgrc), HGPLAIN="1", HGENCODING="UTF-8", LC_ALL="C.UTF-8", TZ="UTC")
    os.umask(0o077)


class SessionServer:
    """One listening socket, its connections and the children that serve them."""

    def __init__(self, options: SessionServerOptions, jobs: SessionJobs) -> None:
        self._options = options
        self._jobs = jobs
        self._locations = Locations(options.locations)
        self._children = Children(jobs, self._forget_everything)
        self._connections: set[Connection] = set()
        self._is_asked_to_stop = False
        self._is_stopping = False
        self._listener = _listen(options.socket)
        self._wakeup = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Serve until a stop signal; return 0."""
        self._watch_signals()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._children.keep_spare()
        _log.info("sessions.ready", extra={"socket": str(self._options.socket)})
        while not self._is_stopping or len(self._children):
            for key, _ in self._selector.select(_TICK_SECONDS):
                key.data()
            self._tick()
        for connection in list(self._connections):
            self._drop(connection)
        _log.info("sessions.stopped")
        return 0

    # ---- set-up

    def _watch_signals(self) -> None:
        """Have signals wake the loop: a child's end is reported at once."""
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in _STOP_SIGNALS:
            signal.signal(number, self._ask_to_stop)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._drain_wakeup)

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        self._is_asked_to_stop = True

    def _drain_wakeup(self) -> None:
        with suppress(BlockingIOError):
            while self._wakeup[0].recv(4096):
                pass

    def _forget_everything(self) -> None:
        """In a child: let go of every socket without closing it; its descriptor soon means another thing."""
        self._selector.close()
        for connection in self._connections:
            connection.detach()
        for sock in (self._listener, *self._wakeup):
            sock.detach()
        self._children.detach()

    # ---- connections

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # gone again
            return
        if not is_same_user(sock) or len(self._connections) >= self._options.max_connections:
            sock.close()
            return
        connection = Connection(sock)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: Connection) -> None:
        if connection not in self._connections:  # dropped by what else this turn of the loop has brought
            return
        try:
            frames = connection.receive()
            for frame in frames or ():
                self._answer(connection, frame)
        except PoisonError as error:
            connection.send(error_header(error))
            frames = None
        except (RejectedError, TransientError) as error:
            connection.send(error_header(error))
        if frames is None:
            self._hang_up(connection)

    def _hang_up(self, connection: Connection) -> None:
        child = self._children.of(connection)
        if child is None:
            self._drop(connection)
            return
        self._unregister(connection)
        if child.description["op"] == "serve":  # a catch-up is finished even when nobody waits for it
            self._children.hang_up(child, self._options.hangup_grace_seconds)

    def _unregister(self, connection: Connection) -> None:
        if connection.sock.fileno() in self._selector.get_map():
            self._selector.unregister(connection.sock)

    def _drop(self, connection: Connection) -> None:
        if connection in self._connections:
            self._unregister(connection)
            self._connections.discard(connection)
            connection.close()

    # ---- operations

    def _answer(self, connection: Connection, frame: Frame) -> None:
        if self._children.of(connection) is not None:
            raise PoisonError("frame.damaged", "a session was asked for already")
        match frame.header.get("op"):
            case "serve":
                self._serve(connection, frame.header)
            case "catch_up":
                self._start(frame.header, [connection.sock.fileno()], connection)
            case "status":
                connection.send({"ok": True, "sessions": [_describe(child) for child in self._children]})
            case _:
                raise RejectedError("sessions.unknown-op", "no such operation")

    def _serve(self, connection: Connection, header: dict[str, Any]) -> None:
        streams = connection.take_descriptors()
        try:
            child = self._start(self._located(header), streams, connection)
        finally:
            for descriptor in streams:
                os.close(descriptor)
        connection.send({"ok": True, "pid": child.pid})

    def _located(self, header: dict[str, Any]) -> dict[str, Any]:
        """Add where the client is: the server knows what was read of the providers' files, once for all."""
        place = self._locations.find(str(header.get("client_address", "")))
        return {**header, "place": [place.name, place.value, place.is_fast]}

    def _start(self, header: dict[str, Any], descriptors: Sequence[int], connection: Connection) -> Child:
        description = self._jobs.describe(header)
        if self._is_stopping:
            raise TransientError("sessions.stopping", "the session server is stopping")
        limit = self._options.max_sessions if description["op"] == "serve" else _MAX_CATCH_UPS
        alike = [child for child in self._children if child.description["op"] == description["op"]]
        running = sum(not child.is_done for child in alike)
        if running >= limit or len(alike) >= _PROCESSES_PER_PLACE * limit:
            raise TransientError("sessions.full", "too many sessions at once", hint="try again in a minute")
        try:
            child = self._children.start(header, descriptors, description, connection)
        except OSError as error:
            raise TransientError("sessions.full", "no process for another session") from error
        self._selector.register(child.forked.control, selectors.EVENT_READ, lambda: self._hear(child))
        return child

    def _hear(self, child: Child) -> None:
        """Take a child's word that it is done, and pass it on while the kernel takes the process down."""
        self._selector.unregister(child.forked.control)
        status = child.forked.take_status()
        if status is not None:
            self._children.note_done(child, status)
            self._answer_end(child, status)

    # ---- what goes on by itself

    def _tick(self) -> None:
        if self._is_asked_to_stop and not self._is_stopping:
            self._stop()
        for child in self._children.enforce():
            _log.error("session.overdue", extra={"pid": child.pid, **child.description})
        for ended in self._children.reap():
            self._report_end(ended)
            self._children.keep_spare()
        too_old = clock.monotonic() - _REQUEST_SECONDS
        for connection in list(self._connections):
            if connection.opened_at < too_old and self._children.of(connection) is None:
                self._drop(connection)

    def _report_end(self, ended: Ended) -> None:
        child = ended.child
        changes, last_seq = child.forked.page.recorded
        fields = {
            "pid": child.pid,
            "exit": ended.status,
            "duration_seconds": round(clock.now() - child.started_at, 3),
            "cpu_seconds": round(ended.cpu_seconds, 3),
            "changes": changes,
            "last_seq": last_seq,
        }
        _log.info("session.ended", extra=fields | child.description)
        self._jobs.clean_up(child.pid)
        if child.status is None:
            if child.forked.control.fileno() in self._selector.get_map():
                self._selector.unregister(child.forked.control)
            self._answer_end(child, ended.status)

    def _answer_end(self, child: Child, status: int) -> None:
        if child.description["op"] == "serve":
            changes, last_seq = child.forked.page.recorded
            child.connection.send({"ok": True, "exit": status, "changes": changes, "last_seq": last_seq})
        elif status:
            child.connection.send(error_header(InvariantError("sessions.crashed", "the worker crashed")))
        self._drop(child.connection)

    def _stop(self) -> None:
        self._is_stopping = True
        self._selector.unregister(self._listener)
        self._listener.close()
        self._options.socket.unlink(missing_ok=True)
        self._children.close()
        for child in self._children:
            self._children.hang_up(child, self._options.stop_grace_seconds, signal.SIGTERM)


def _describe(child: Child) -> dict[str, Any]:
    return {"pid": child.pid, "started_at": child.started_at, **child.description}


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise ConfigError("sessions.socket", "cannot listen there", path=str(path)) from error
    finally:
        os.umask(old_mask)
    listener.listen(128)
    listener.setblocking(False)
    return listener
