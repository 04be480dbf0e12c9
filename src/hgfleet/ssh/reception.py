"""Receives each visit that the SSH server lets in, and sees it through to its exit status.

Promises: exactly one log line and one audit line per visit, with its outcome; descriptors made for a session
are closed here whatever happens; a client that hangs up takes its session with it. A session whose account
was disabled or removed, or lost the key, is told so and hung up within `account_check_seconds`.
Does not: decide what may be asked for (ssh.gate) or move bytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hgfleet.adapters.session_client import OpenSession, SessionEnd
from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.model.client_line import client_line
from hgfleet.model.command import Banner, Clone, Serve, ShowConfig, ShowGroup, format_command
from hgfleet.ports.directory import Account
from hgfleet.ports.ssh_front import Streams, Visit
from hgfleet.runtime import async_clock, clock
from hgfleet.ssh import gate
from hgfleet.ssh.accounts import Accounts
from hgfleet.ssh.audit import AuditFile
from hgfleet.ssh.gate import Admission, Site
from hgfleet.ssh.local_services import LocalServices

_HUNG_UP = SessionEnd(129)
_HANG_UP_SECONDS = 10.0
_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions at once, and how long `clone` waits for the mirrors."""

    max_sessions: int = 64
    max_sessions_per_account: int = 16
    wait_seconds: float = 10.0  # for room, before a session is refused
    visible_wait_seconds: float = 2.0
    account_check_seconds: float = 30.0


@dataclass(slots=True)
class _Record:
    """What the log and audit lines of one visit say."""

    trace: str
    account: str
    client_address: str
    key: str  # the fingerprint of the one that was proved
    command: str = "refused"  # never the client's own words
    pusher: str = ""
    repository: str = ""
    code: str = "ok"
    reason: str = ""
    changes: int = 0  # how many the log accepted
    last_seq: int = 0
    started_at: float = field(default_factory=clock.now)
    start: float = field(default_factory=clock.monotonic)

    def fields(self, status: int) -> dict[str, object]:
        return {
            "trace": self.trace,
            "account": self.account,
            "pusher": self.pusher,
            "client_address": self.client_address,
            "key": self.key,
            "command": self.command,
            "repository": self.repository,
            "code": self.code,
            "reason": self.reason,
            "changes": self.changes,
            "last_seq": self.last_seq,
            "exit": status,
            "started_at": round(self.started_at, 3),
            "duration_seconds": round(clock.monotonic() - self.start, 3),
        }


class FleetReception:
    """The Reception port for a fleet."""

    def __init__(
        self, accounts: Accounts, services: LocalServices, site: Site, audit: AuditFile, limits: SessionLimits
    ) -> None:
        self._accounts = accounts
        self._services = services
        self._site = site
        self._audit = audit
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._room = asyncio.Condition()

    async def account(self, name: str) -> Account | None:
        return await self._accounts.find(name)

    async def groups_now(self, name: str, key_fingerprint: str) -> frozenset[str]:
        """Return the groups with whose rights who came in with this key acts now.

        Raises RejectedError when there are none any more, TransientError when it can't be known.
        """
        return gate.groups_of(gate.require_standing(await self.account(name), key_fingerprint))

    async def receive(self, visit: Visit, streams: Streams) -> int:
        record = _Record(uuid.uuid4().hex, visit.account, visit.client_address, visit.key_fingerprint)
        status = FleetError.exit_code
        try:
            status = await self._serve(visit, streams, record)
        except FleetError as error:
            record.code, record.reason = error.code, str(error)
            streams.tell(client_line(error))
            status = error.exit_code
        finally:
            fields = record.fields(status)
            _log.info("ssh.session", extra=fields)
            self._audit.write(fields)
        return status

    async def _serve(self, visit: Visit, streams: Streams, record: _Record) -> int:
        admission = gate.admit(visit, await self._accounts.find(visit.account), self._site)
        record.command = format_command(admission.command) or "banner"
        record.pusher = admission.pusher
        self._accounts.touch(admission.account)
        async with self._counted(admission.account):
            match admission.command:
                case Banner():
                    streams.show(gate.banner(admission, self._site))
                    return 0
                case Clone():
                    return await self._clone(admission.command, admission, streams, record)
                case Serve():
                    return await self._run_session(admission.command, admission, streams, record)
                case ShowGroup() | ShowConfig():
                    return await self._show(admission.command, streams, record)

    @asynccontextmanager
    async def _counted(self, account: str) -> AsyncIterator[None]:
        """Count a session while it lasts; wait for room first. Raises TransientError `sessions.full`."""
        try:
            async with asyncio.timeout(self._limits.wait_seconds), self._room:
                await self._room.wait_for(lambda: self._has_room(account))
                self._open[account] += 1
        except TimeoutError as error:
            hint = "try again in a minute"
            raise TransientError("sessions.full", "too many sessions at once", hint=hint) from error
        try:
            yield
        finally:
            self._open[account] -= 1
            self._open += Counter()  # drops what is zero
            async with self._room:
                self._room.notify_all()

    def _has_room(self, account: str) -> bool:
        limits = self._limits
        return (
            self._open.total() < limits.max_sessions and self._open[account] < limits.max_sessions_per_account
        )

    async def _clone(self, command: Clone, admission: Admission, streams: Streams, record: _Record) -> int:
        path = gate.planned_path(command, admission, self._site)
        settings = gate.first_settings(path, admission, self._site)
        change = await self._services.create(path, settings, admission.account, record.trace)
        record.repository = change.repository
        seen = await self._services.wait_created(change, self._limits.visible_wait_seconds)
        count = len(seen.mirrors)
        how = f"visible on all {count} mirrors" if seen.is_visible else "not yet visible on all mirrors"
        streams.show(f"created {path}; {how}\n")
        return 0

    async def _show(self, command: ShowGroup | ShowConfig, streams: Streams, record: _Record) -> int:
        bound = await self._services.resolve(command.path)
        record.repository = bound.repository
        settings = await self._services.settings(bound)
        if isinstance(command, ShowGroup):
            streams.show(gate.describe_groups(bound.path, settings))
        else:
            streams.show(gate.describe_settings(settings))
        return 0

    async def _run_session(
        self, command: Serve, admission: Admission, streams: Streams, record: _Record
    ) -> int:
        bound = await self._services.resolve(command.path)
        record.repository = bound.repository
        request = {
            "account": admission.account,
            "pusher": admission.pusher,
            "key": record.key,
            "groups": sorted(admission.groups),
            "path": bound.path,
            "repository": bound.repository,
            "partition": bound.partition,
            "client_address": record.client_address,
            "trace": record.trace,
        }
        session = await self._open_session(request, streams)
        try:
            end = await self._wait_end(session, streams, record)
        finally:
            session.close()
        record.changes, record.last_seq = end.changes, end.last_seq
        return end.status

    async def _wait_end(self, session: OpenSession, streams: Streams, record: _Record) -> SessionEnd:
        """Return how the session ended; hang up when the client goes away or its account may not stay.

        What is hung up has a little while to end.
        """
        end = asyncio.ensure_future(session.end())
        gone = asyncio.ensure_future(streams.wait_hung_up())
        fallen = asyncio.ensure_future(self._wait_fallen(record.account, record.key))
        try:
            await asyncio.wait({end, gone, fallen}, return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                session.hang_up()
                await asyncio.wait({end}, timeout=_HANG_UP_SECONDS)
                if fallen.done():
                    _tell_why(fallen.result(), streams, record)
            return end.result() if end.done() else _HUNG_UP
        finally:
            for task in (end, gone, fallen):
                task.cancel()
            await asyncio.gather(end, gone, fallen, return_exceptions=True)

    async def _wait_fallen(self, name: str, key_fingerprint: str) -> RejectedError:
        """Return why an open session may not stay, once that is so; an outage ends none."""
        while True:
            await async_clock.sleep(self._limits.account_check_seconds)
            try:
                await self.groups_now(name, key_fingerprint)
            except RejectedError as error:
                return error
            except TransientError:
                continue  # its writes are refused once the cache's bound is over

    async def _open_session(self, request: dict[str, object], streams: Streams) -> OpenSession:
        if streams.are_clients_own:  # in the mail of a server that hangs they would keep the client waiting
            await self._services.check_sessions()
        descriptors = streams.open_descriptors()
        try:
            return await self._services.open_session(request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _tell_why(error: RejectedError, streams: Streams, record: _Record) -> None:
    record.code, record.reason = error.code, str(error)
    streams.tell(client_line(error))
