"""Whether an LDAP directory can be used as configured, for `hgfleet doctor`.

Promises: every server is asked by itself; each finding that is not good names the setting or the file that
mends it; nothing is written.
Does not: look at a single account's entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import ldap3
from ldap3.core.exceptions import LDAPInvalidCredentialsResult, LDAPSizeLimitExceededResult

from hgfleet.adapters.ldap_connections import FAILURES, LdapConnections, LdapOptions, describe
from hgfleet.adapters.secret_files import check_secret_file
from hgfleet.errors import FleetError
from hgfleet.model.finding import Finding

SUBJECT = "directory"
PAGE_ENTRIES = 500


def check_ldap(options: LdapOptions) -> list[Finding]:
    """Connect to each server; then look at schema and accounts on the first that works."""
    try:
        connections = LdapConnections(options)
    except FleetError as error:
        return [Finding(SUBJECT, False, str(error), error.hint)]
    try:
        findings = [_check_server(connections, number, url) for number, url in enumerate(options.servers)]
        findings += check_secret_file(SUBJECT, options.password_file)
        if any(finding.is_good for finding in findings):
            findings += _check_contents(connections, options)
        return findings
    finally:
        connections.close()


def _check_server(connections: LdapConnections, number: int, url: str) -> Finding:
    try:
        connections.probe(number)
    except LDAPInvalidCredentialsResult:
        remedy = "check ldap.bind_dn and ldap.password_file"
        return Finding(SUBJECT, False, f"{url}: it refuses our name and password", remedy)
    except FAILURES as error:
        remedy = "start it, or correct ldap.servers, ldap.ca_file or ldap.start_tls"
        return Finding(SUBJECT, False, f"{url}: {describe(error)}", remedy)
    return Finding(SUBJECT, True, f"{url}: reachable, and we may log in")


def _check_contents(connections: LdapConnections, options: LdapOptions) -> Iterator[Finding]:
    try:
        yield from connections.use(lambda connection: list(_check_schema(connection, options)))
        yield connections.use(lambda connection: _count_accounts(connection, options))
    except FleetError as error:
        yield Finding(SUBJECT, False, str(error), error.hint)


def _check_schema(connection: ldap3.Connection, options: LdapOptions) -> Iterator[Finding]:
    """Compare the configured attributes with the server's schema, where it shows that."""
    connection.search("", "(objectClass=*)", ldap3.BASE, attributes=["subschemaSubentry"])
    place = [answer["raw_attributes"].get("subschemaSubentry") for answer in connection.response or ()]
    if not place or not place[0]:
        return
    connection.search(
        place[0][0].decode(), "(objectClass=subschema)", ldap3.BASE, attributes=["attributeTypes"]
    )
    raw = [answer["raw_attributes"].get("attributeTypes", ()) for answer in connection.response or ()]
    text = b" ".join(definition for definitions in raw for definition in definitions).decode(
        "utf-8", "replace"
    )
    known = {word.strip("'").lower() for word in text.split() if word.startswith("'")}
    for setting, name in _attributes(options):
        if name and name.lower() not in known:
            remedy = f"load deploy/ldap's schema, or correct ldap.{setting}"
            yield Finding(SUBJECT, False, f"no attribute {name} in the schema", remedy)


def _attributes(options: LdapOptions) -> Iterator[tuple[str, str]]:
    for setting in ("account", "key", "enabled", "access_date", "group"):
        yield f"{setting}_attribute", getattr(options, f"{setting}_attribute")


def _count_accounts(connection: ldap3.Connection, options: LdapOptions) -> Finding:
    enabled = f"({options.enabled_attribute}=TRUE)" if options.enabled_attribute else ""
    condition = f"(&{options.accounts_filter}({options.account_attribute}=*){enabled})"
    try:
        count = sum(1 for _ in _paged(connection, options, condition))
    except LDAPSizeLimitExceededResult:
        return Finding(SUBJECT, True, "more accounts are enabled than the server lists at once")
    if count == 0:
        remedy = "check ldap.accounts_base, ldap.accounts_filter and what ldap.bind_dn may read"
        return Finding(SUBJECT, False, "no account is enabled, so nobody can log in", remedy)
    return Finding(SUBJECT, True, f"{count} accounts are enabled")


def _paged(connection: ldap3.Connection, options: LdapOptions, condition: str) -> Iterator[object]:
    pages = connection.extend.standard.paged_search(
        options.accounts_base,
        condition,
        search_scope=ldap3.SUBTREE,
        attributes=[options.account_attribute],
        paged_size=PAGE_ENTRIES,
        time_limit=math.ceil(options.search_timeout_seconds),
        generator=True,
    )
    return (answer for answer in pages if answer["type"] == "searchResEntry")
