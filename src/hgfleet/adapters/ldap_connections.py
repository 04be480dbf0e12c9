"""Connections to the servers of an LDAP directory: in order, in bounded time, encrypted, kept warm.

Promises: a server that cannot be used is passed over for the next; one that let a time-out pass is not asked
again for a while. A kept connection that broke is replaced once, unnoticed. Referrals are never followed.
Every failure leaves as TransientError `directory.unreachable`, which names each server and what it did.
Does not: know what is searched for (ldap_directory).
"""

from __future__ import annotations

import math
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ldap3
from ldap3.core.exceptions import (
    LDAPException,
    LDAPInvalidCredentialsResult,
    LDAPNoSuchObjectResult,
    LDAPOperationResult,
    LDAPStartTLSError,
)
from pyasn1.error import PyAsn1Error

from hgfleet.errors import ConfigError, TransientError
from hgfleet.runtime import clock

T = TypeVar("T")
KEPT_SECONDS = 240.0  # servers and firewalls forget idle connections after a few minutes
AVOIDED_SECONDS = 5.0
# What ldap3 raises, its parsing of a broken answer included.
FAILURES = (LDAPException, PyAsn1Error, OSError, struct.error, ValueError, TypeError, LookupError)


@dataclass(frozen=True, slots=True)
class LdapOptions:
    """How the directory is reached and what its entries look like."""

    servers: tuple[str, ...]
    accounts_base: str
    start_tls: bool = False
    ca_file: Path | None = None
    allow_plain: bool = False
    bind_dn: str = ""
    password_file: Path | None = None
    accounts_filter: str = "(objectClass=hgAccount)"
    account_attribute: str = "mail"
    key_attribute: str = "sshPublicKey"
    enabled_attribute: str = "hgAccountEnabled"
    access_date_attribute: str = "hgAccessDate"
    groups_base: str = ""
    groups_filter: str = "(memberUid={account})"
    group_attribute: str = "cn"
    max_groups: int = 1000
    connect_timeout_seconds: float = 1.0
    search_timeout_seconds: float = 2.0


@dataclass(slots=True)
class _Kept:
    connection: ldap3.Connection
    used_at: float


class LdapConnections:
    """Connections for any number of threads; each is used by one at a time."""

    def __init__(self, options: LdapOptions) -> None:
        """Prepare; nothing is asked yet. Raises ConfigError for files that cannot be used."""
        self._options = options
        self._password = _read_password(options.password_file)
        self._tls = _StrictTls(options.ca_file)
        for url in options.servers:
            _make_server(url, self._tls, options)
        self._avoided_until = [0.0] * len(options.servers)
        self._kept: deque[_Kept] = deque()
        self._lock = threading.Lock()

    def use(self, work: Callable[[ldap3.Connection], T]) -> T:
        """Return what `work` returns on a bound connection. Raises TransientError.

        On a kept connection that turns out broken, `work` is called again on a new one.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._use(kept, work)
            except LDAPNoSuchObjectResult as error:
                raise self._no_such_base(error) from error
            except FAILURES:
                pass  # most likely it was closed while it was idle
        return self._use_new(work)

    def close(self) -> None:
        """Give the kept connections up."""
        while (kept := self._take()) is not None:
            _close(kept)

    def probe(self, number: int) -> None:
        """Connect to one server and bind; raise what goes wrong, as ldap3 has it."""
        _close(self._connect(number))

    def _use_new(self, work: Callable[[ldap3.Connection], T]) -> T:
        """Try each server once; a slow one may cost its time-outs, and then is passed over for a while."""
        reasons = []
        for number in self._order():
            started_at = clock.monotonic()
            try:
                return self._use(self._connect(number), work)
            except LDAPNoSuchObjectResult as error:
                raise self._no_such_base(error) from error
            except FAILURES as error:
                reasons.append(f"{self._options.servers[number]}: {describe(error)}")
                self._note_failure(number, clock.monotonic() - started_at)
                last = error
        if not reasons:
            raise unreachable("no server has answered in time for a while", ", ".join(self._options.servers))
        raise unreachable(_hint(last), "; ".join(reasons)) from last

    def _order(self) -> list[int]:
        now = clock.monotonic()
        return [number for number, until in enumerate(self._avoided_until) if until <= now]

    def _note_failure(self, number: int, seconds: float) -> None:
        """Pass a server over that lets people wait; one that refuses at once costs nobody anything."""
        limits = (self._options.connect_timeout_seconds, self._options.search_timeout_seconds)
        if seconds >= min(limits) * 0.9:
            self._avoided_until[number] = clock.monotonic() + AVOIDED_SECONDS

    def _use(self, connection: ldap3.Connection, work: Callable[[ldap3.Connection], T]) -> T:
        is_usable = False
        try:
            result = work(connection)
            is_usable = True
        finally:
            if is_usable:
                self._keep(connection)
            else:
                _close(connection)
        return result

    def _take(self) -> ldap3.Connection | None:
        """Return a kept connection, None when there is none; what was idle for too long is given up."""
        while True:
            with self._lock:
                if not self._kept:
                    return None
                kept = self._kept.pop()
            if clock.monotonic() - kept.used_at < KEPT_SECONDS:
                return kept.connection
            _close(kept.connection)

    def _keep(self, connection: ldap3.Connection) -> None:
        with self._lock:
            self._kept.append(_Kept(connection, clock.monotonic()))

    def _connect(self, number: int) -> ldap3.Connection:
        options = self._options
        connection = ldap3.Connection(
            # A new one each time: it would remember for minutes that an address did not answer.
            _make_server(options.servers[number], self._tls, options),
            user=options.bind_dn or None,
            password=self._current_password() or None,
            authentication=ldap3.SIMPLE if options.bind_dn else ldap3.ANONYMOUS,
            receive_timeout=math.ceil(options.search_timeout_seconds),  # ldap3 packs it as a whole number
            auto_referrals=False,
            raise_exceptions=True,
            check_names=False,
        )
        try:
            connection.open(read_server_info=False)
            if options.start_tls:
                connection.start_tls(read_server_info=False)
                if not (connection.tls_started or connection.server.ssl):  # it may answer no without raising
                    raise LDAPStartTLSError("the connection is not encrypted")
            connection.bind(read_server_info=False)
        except BaseException:
            _close(connection)
            raise
        return connection

    def _current_password(self) -> str:
        """Read the password again: it may have been changed; while its file cannot be read it has not."""
        with suppress(ConfigError):
            self._password = _read_password(self._options.password_file)
        return self._password

    def _no_such_base(self, error: LDAPException) -> TransientError:
        """Say that a base is missing or may not be read: that tells nothing about any account."""
        return unreachable(
            "check ldap.accounts_base, ldap.groups_base and what ldap.bind_dn may read", describe(error)
        )


class _StrictTls(ldap3.Tls):
    """TLS as the standard library does it: host name, addresses included, and certificate checked."""

    def __init__(self, ca_file: Path | None) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        try:
            self._context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                "ldap.no-ca", "the LDAP servers' CA file cannot be used", path=str(ca_file)
            ) from error
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=connection.server.host
        )


def check_result(connection: ldap3.Connection) -> None:
    """Raise for every result but success: by itself ldap3 lets limits and referrals pass as if complete."""
    result = connection.result
    if result["result"] != 0:
        raise LDAPOperationResult(
            result=result["result"], description=result["description"], message=result["message"]
        )


def unreachable(hint: str, reason: str) -> TransientError:
    """Return the error for a directory that cannot be asked."""
    return TransientError(
        "directory.unreachable", "the directory of accounts cannot be asked", hint=hint, reason=reason
    )


def describe(error: BaseException) -> str:
    """Return one line about what ldap3 raised; no value of an entry or password is in it."""
    text = str(error).splitlines()[0] if str(error) else ""
    return text[:200] or type(error).__name__


def _hint(error: BaseException) -> str:
    if isinstance(error, LDAPInvalidCredentialsResult):
        return "check ldap.bind_dn and ldap.password_file"
    return "check ldap.servers, ldap.ca_file and that the directory runs"


def _make_server(url: str, tls: _StrictTls, options: LdapOptions) -> ldap3.Server:
    try:
        return ldap3.Server(
            url, get_info=ldap3.NONE, tls=tls, connect_timeout=options.connect_timeout_seconds
        )
    except LDAPException as error:
        raise ConfigError("ldap.bad-server", "not the URL of an LDAP server", url=url) from error


def _read_password(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(
            "ldap.password", "the file with the LDAP password cannot be read", path=str(path), reason=reason
        ) from error


def _close(connection: ldap3.Connection) -> None:
    with suppress(*FAILURES):
        connection.strategy.close()  # without an unbind's wait for a server that may not answer
