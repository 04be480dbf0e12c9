"""The table [ldap]: how the directory of accounts is reached, and what its entries look like.

Promises: what is accepted here fits each other (`find_ldap_conflicts`); nothing is sent readable unless that
is asked for by name.
Does not: ask a server whether it is right (`hgfleet doctor` does).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from hgfleet.config.section import Section, setting
from hgfleet.config.units import Duration, Names, OptionalFilePath


def _check_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    if not all(re.fullmatch(r"ldaps?://[^/?#@\s]+", url) for url in urls):
        raise ValueError('expected URLs such as "ldaps://ldap1.example.org" or "ldap://[::1]:389"')
    return urls


def _check_filter(text: str) -> str:
    if not re.fullmatch(r"\(.+\)", text) or text.count("(") != text.count(")"):
        raise ValueError('expected an LDAP filter in parentheses, such as "(objectClass=hgAccount)"')
    return text


Urls = Annotated[Names, AfterValidator(_check_urls)]
Filter = Annotated[str, AfterValidator(_check_filter)]
Attribute = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9;-]*$")]
AttributeOrNone = Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9;-]*)?$")]


class LdapSection(Section):
    """The directory of accounts on LDAP servers, for directory.kind = "ldap"; docs/operate/ldap.md."""

    servers: Urls = setting([], 'such as "ldaps://ldap1.example.org"; asked in this order')
    start_tls: bool = setting(False, "encrypt ldap:// connections before anything else")
    allow_plain: bool = setting(False, "accept ldap:// without start_tls: passwords and keys travel readable")
    ca_file: OptionalFilePath = setting("", 'CA certificates of the servers; "": the system\'s')
    bind_dn: str = setting("", 'whom to log in as; "": anonymous')
    password_file: OptionalFilePath = setting("", "file with the password of bind_dn")
    accounts_base: str = setting("", "below which entry the accounts are")
    accounts_filter: Filter = setting("(objectClass=hgAccount)", "which entries below it are accounts")
    account_attribute: Attribute = setting("mail", "what people log in as; compared exactly")
    key_attribute: Attribute = setting("sshPublicKey", "their SSH keys, one per value")
    enabled_attribute: AttributeOrNone = setting(
        "hgAccountEnabled", 'TRUE for those who may log in; "": everybody who is there'
    )
    access_date_attribute: AttributeOrNone = setting(
        "hgAccessDate", 'written when an account is used, once a day; "": nothing is written'
    )
    groups_base: str = setting("", 'below which entry the groups are; "": there are none')
    groups_filter: Filter = setting(
        "(memberUid={account})", "which groups an account is in; {account} and {dn} are put in"
    )
    group_attribute: Attribute = setting("cn", "what a group is called")
    max_groups: Annotated[int, Field(ge=1, le=100_000)] = setting(
        1000, "an account in more groups is an error"
    )
    connect_timeout_seconds: Duration = setting("1s", "for a connection to one server", key="connect_timeout")
    search_timeout_seconds: Duration = setting(
        "2s", "for each answer of a server, in whole seconds", key="search_timeout"
    )


def find_ldap_conflicts(ldap: LdapSection) -> Iterator[str]:
    """Yield what cannot be right about the settings of a directory that is used."""
    for key, value in (("servers", ldap.servers), ("accounts_base", ldap.accounts_base)):
        if not value:
            yield f'ldap.{key}: must be given, as directory.kind is "ldap"'
    if bool(ldap.bind_dn) != bool(ldap.password_file):
        yield "ldap.bind_dn, ldap.password_file: one is of no use without the other"
    yield from _find_plain_servers(ldap)
    yield from _find_filter_faults(ldap)


def _find_plain_servers(ldap: LdapSection) -> Iterator[str]:
    if ldap.allow_plain or ldap.start_tls:
        return
    for url in ldap.servers:
        if url.startswith("ldap://"):
            yield f"ldap.servers: {url} is not encrypted; use ldaps://, or set ldap.start_tls"


def _find_filter_faults(ldap: LdapSection) -> Iterator[str]:
    places = set(re.findall(r"\{([^}]*)\}", ldap.groups_filter))
    if unknown := places - {"account", "dn"}:
        yield f"ldap.groups_filter: nothing is put in for {', '.join(sorted(unknown))}"
    elif not places:
        yield "ldap.groups_filter: without {account} or {dn} everybody would be in every group"
    if "{" in ldap.accounts_filter:
        yield "ldap.accounts_filter: nothing is put in here; the account's name is asked for beside it"
