"""Filters: whatever a value holds stays a value."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3 import Connection
from ldap3.core.exceptions import LDAPException
from ldap3.operation.search import parse_filter

from hgfleet.adapters.ldap_connections import check_result
from hgfleet.adapters.ldap_filters import escape_value, fill_filter


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("alice@example.org", "alice@example.org"),
        ("*", "\\2a"),
        ("a(b)c\\", "a\\28b\\29c\\5c"),
        ("\0", "\\00"),
        ("é", "\\c3\\a9"),
        ("a\nb", "a\\0ab"),
        (" a ", "\\20a\\20"),
    ],
)
def test_what_means_something_in_a_filter_is_escaped(value: str, escaped: str) -> None:
    assert escape_value(value) == escaped


@pytest.mark.parametrize("value", [["*"], ("*",), {"*": "*"}, b"*", 7, None])
def test_only_strings_are_values(value: Any) -> None:
    """CVE-2025-61911: a list was escaped as if each of its items were safe."""
    with pytest.raises(TypeError):
        escape_value(value)


def test_a_nul_is_escaped_as_two_digits() -> None:
    """CVE-2025-61912: NUL was escaped so that a server read something else."""
    assert fill_filter("(member={dn})", {"dn": "cn=a\0b"}) == "(member=cn=a\\00b)"


@given(st.text())
def test_a_filter_filled_with_anything_still_compares_one_attribute(value: str) -> None:
    text = fill_filter("(&(objectClass=x)(mail={account}))", {"account": value})
    parsed = parse_filter(text, None, False, False, None, False)
    both = parsed.elements[0].elements
    assert len(both) == 2
    assert both[1].assertion["attr"] == "mail"
    written = both[1].assertion["value"]
    plain = re.sub(rb"\\([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), written)
    assert plain == value.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("result", [3, 4, 10, 51])
def test_an_answer_that_a_limit_or_referral_cut_short_is_an_error(result: int) -> None:
    """By itself ldap3 returns no entries then, which would be "no such account"."""

    answer = {"result": result, "description": "cut", "message": ""}
    with pytest.raises(LDAPException):
        check_result(cast(Connection, SimpleNamespace(result=answer)))
