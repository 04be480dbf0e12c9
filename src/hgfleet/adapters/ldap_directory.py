"""The directory of accounts in LDAP: SSH keys, groups, enabled; bases and attributes are configuration.

Promises: an account is None only when a server answered that nothing matches; whatever else happens is an
error (A1). Names are compared exactly, as many directories would let `Alice` be `alice`; two entries for one
name let nobody in. A key with options or damage is passed over, so an entry can never widen or narrow what it
may do. The date of the last use is written in the background, once a day, and never in anybody's way.
Does not: cache over an outage (cached_directory) or decide access.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ldap3
from ldap3.core.exceptions import LDAPSizeLimitExceededResult

from hgfleet.adapters.ldap_connections import LdapConnections, LdapOptions, check_result, unreachable
from hgfleet.adapters.ldap_filters import escape_value, fill_filter
from hgfleet.adapters.ldap_touch import LastUse
from hgfleet.adapters.ssh_keys import read_public_key
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import AccountName
from hgfleet.ports.directory import Account

_log = logging.getLogger("hgfleet.directory")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it came: its DN, and its attributes' values by lower-case name."""

    dn: str
    values: Mapping[str, tuple[bytes, ...]]

    def texts(self, attribute: str) -> list[str]:
        """Return an attribute's values; what is no text is left out."""
        texts = []
        for value in self.values.get(attribute.lower(), ()):
            with suppress(UnicodeDecodeError):
                texts.append(value.decode())
        return texts


class LdapDirectory:
    """The Directory port on LDAP servers; safe for several threads."""

    def __init__(self, options: LdapOptions) -> None:
        """Prepare; no server is asked. Raises ConfigError."""
        self.options = self._options = options
        self._connections = LdapConnections(options)
        self._last_use = LastUse(self._write_last_use)

    def account(self, name: AccountName) -> Account | None:
        return self._connections.use(lambda connection: self._look_up(connection, name))

    def touch(self, name: AccountName) -> None:
        if self._options.access_date_attribute:
            self._last_use.note(name)

    def close(self) -> None:
        """End the background work and the connections."""
        self._last_use.close()
        self._connections.close()

    @property
    def failed_touches(self) -> int:
        """How many dates of last use could not be written since the start."""
        return self._last_use.failures

    # ---- looking up

    def _look_up(self, connection: ldap3.Connection, name: AccountName) -> Account | None:
        entry = self._find(connection, name)
        if entry is None:
            return None
        dates = entry.texts(self._options.access_date_attribute)
        self._last_use.learn(name, dates[0] if dates else "")
        groups = self._groups(connection, entry, name)
        return Account(name, self._is_enabled(entry), groups, tuple(self._keys(entry, name)))

    def _find(self, connection: ldap3.Connection, name: AccountName) -> Entry | None:
        """Return the one entry of a name, None when there is none."""
        options = self._options
        condition = f"(&{options.accounts_filter}({options.account_attribute}={escape_value(name)}))"
        attributes = [
            options.account_attribute,
            options.key_attribute,
            *filter(None, (options.enabled_attribute, options.access_date_attribute)),
        ]
        try:
            entries = search(connection, options, options.accounts_base, condition, attributes, limit=2)
        except LDAPSizeLimitExceededResult as error:
            raise _ambiguous(name) from error
        found = [entry for entry in entries if name in entry.texts(options.account_attribute)]
        if len(found) > 1:
            raise _ambiguous(name)
        return found[0] if found else None

    def _groups(self, connection: ldap3.Connection, entry: Entry, name: AccountName) -> frozenset[str]:
        options = self._options
        if not options.groups_base:
            return frozenset()
        condition = fill_filter(options.groups_filter, {"account": name, "dn": entry.dn})
        limit = options.max_groups
        try:
            entries = search(
                connection, options, options.groups_base, condition, [options.group_attribute], limit=limit
            )
        except LDAPSizeLimitExceededResult as error:
            raise unreachable(
                f"{name} is in more than {limit} groups: see ldap.max_groups", "too many"
            ) from error
        return frozenset(group for each in entries for group in each.texts(options.group_attribute))

    def _is_enabled(self, entry: Entry) -> bool:
        if not self._options.enabled_attribute:
            return True
        return entry.texts(self._options.enabled_attribute) == ["TRUE"]

    def _keys(self, entry: Entry, name: AccountName) -> Sequence[str]:
        keys = []
        for text in entry.texts(self._options.key_attribute):
            try:
                keys.append(read_public_key(text).text)
            except RejectedError as error:
                _log.info("directory.key-passed-over", extra={"account": name, "reason": error.message})
        return keys

    # ---- the date of the last use

    def _write_last_use(self, name: AccountName, date: str) -> None:
        self._connections.use(lambda connection: self._replace_date(connection, name, date))

    def _replace_date(self, connection: ldap3.Connection, name: AccountName, date: str) -> None:
        entry = self._find(connection, name)
        if entry is not None:
            change = {self._options.access_date_attribute: [(ldap3.MODIFY_REPLACE, [date])]}
            connection.modify(entry.dn, change)  # type: ignore[no-untyped-call]
            check_result(connection)


def search(
    connection: ldap3.Connection,
    options: LdapOptions,
    base: str,
    condition: str,
    attributes: Sequence[str],
    *,
    limit: int,
) -> list[Entry]:
    """Return the entries below a base; what the server refers to elsewhere is not among them.

    Raises what ldap3 raises, LDAPSizeLimitExceededResult for more than `limit`.
    """
    connection.search(
        base,
        condition,
        search_scope=ldap3.SUBTREE,
        attributes=list(attributes),
        size_limit=limit,
        time_limit=math.ceil(options.search_timeout_seconds),
    )
    check_result(connection)
    found = [answer for answer in connection.response or () if answer["type"] == "searchResEntry"]
    return [_entry(answer) for answer in found]


def _entry(answer: Mapping[str, Any]) -> Entry:
    values = {name.lower(): tuple(found) for name, found in answer["raw_attributes"].items()}
    return Entry(str(answer["dn"]), values)


def _ambiguous(name: AccountName) -> TransientError:
    hint = "let one entry have the name only, or narrow ldap.accounts_filter"
    return TransientError(
        "directory.ambiguous", "several entries have the account's name", hint=hint, account=name
    )
