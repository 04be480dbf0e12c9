"""What the pushlog's parameters mean, and what is no value of them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgfleet.errors import RejectedError
from hgfleet.model.ids import PushId
from hgfleet.model.pushlog_query import (
    PushQuery,
    narrowed,
    next_query,
    parse_date,
    parse_page,
    parse_push_query,
)

DAY = 1704067200.0  # 2024-01-01


def test_no_parameters_ask_for_the_newest_in_version_one() -> None:
    assert parse_push_query("") == PushQuery()
    assert parse_push_query("").is_open
    assert parse_push_query("full=1&tipsonly=1&version=2").is_open


def test_every_parameter_is_read() -> None:
    query = parse_push_query(
        "version=2&full=1&tipsonly=1&startID=3&endID=9&startdate=2024-01-01&enddate=1704067201&"
        "fromchange=abc&tochange=v1&user=a%40b&user=c&changeset=tip&changeset=0&branch=default"
    )
    assert query == PushQuery(
        version=2,
        is_full=True,
        tips_only=True,
        after_id=PushId(3),
        through_id=PushId(9),
        after_date=DAY,
        before_date=DAY + 1,
        from_change="abc",
        to_change="v1",
        users=("a@b", "c"),
        changesets=("tip", "0"),
        branch="default",
    )
    assert not query.is_open


@pytest.mark.parametrize("query", ["full", "full&version=1", "version=1&full=true"])
def test_full_may_stand_alone(query: str) -> None:
    assert parse_push_query(query).is_full


@pytest.mark.parametrize("query", ["full=0", "full=", "tipsonly=&version=&startID=&user=&enddate="])
def test_an_empty_parameter_counts_as_absent(query: str) -> None:
    assert parse_push_query(query) == PushQuery()


@pytest.mark.parametrize(
    "text",
    [
        "1704067200",
        "1704067200.0",
        "2024-01-01",
        "2024-01-01 00:00",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00Z",
        "2024-01-01t00:00:00.0z",
        "2024-01-01T00:00:00+00:00",
        "2024-01-01 02:00:00 +0200",
        "2024-01-01T02:00:00+02",
        "2023-12-31T19:00-05:00",
        "2024-01-01T02:00:00 02:00",
    ],
)
def test_a_date_has_many_forms(text: str) -> None:
    assert parse_date(text) == DAY


@pytest.mark.parametrize(
    "query",
    [
        "startID=x",
        "startID=-1",
        "startID=1.5",
        "startID=%D9%A1",
        f"endID={'9' * 30}",
        "version=3",
        "full=maybe",
        "tipsonly=2",
        "startdate=yesterday",
        "startdate=2024-13-01",
        "enddate=2024-01-01T25:00",
        "enddate=1e9",
        "startdate=99999999999999",
        "changeset=a%00b",
        f"branch={'x' * 300}",
        "fromchange=a%0Ab",
    ],
)
def test_a_bad_value_is_refused_by_name(query: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_push_query(query)
    assert caught.value.status == 400
    assert query.partition("=")[0] in caught.value.message
    assert caught.value.message.isascii()


@given(st.text(max_size=60))
def test_any_query_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RejectedError):
        assert isinstance(parse_push_query(text), PushQuery)


@given(
    st.lists(st.tuples(st.sampled_from(["user", "branch", "x"]), st.text(min_size=1, max_size=5)), max_size=4)
)
def test_the_next_page_keeps_everything_but_the_lower_bound(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import parse_qsl, urlencode

    query = urlencode([*pairs, ("startID", "3"), ("full", "1")])
    assert parse_qsl(next_query(query, PushId(7))) == [*pairs, ("full", "1"), ("startID", "7")]


def test_a_flag_without_value_stays_one_on_the_next_page() -> None:
    assert next_query("full&version=2", PushId(4)) == "full&version=2&startID=4"


def test_bounds_by_changeset_and_by_id_hold_together() -> None:
    query = PushQuery(after_id=PushId(2), through_id=PushId(9))
    assert narrowed(query, after=PushId(4), through=PushId(20)) == PushQuery(
        after_id=PushId(4), through_id=PushId(9)
    )
    assert narrowed(query, after=None, through=None) == query
    assert narrowed(PushQuery(), after=PushId(1), through=None) == PushQuery(after_id=PushId(1))


@pytest.mark.parametrize(("text", "page"), [("", 1), ("1", 1), ("12", 12)])
def test_a_page_is_a_number_from_one(text: str, page: int) -> None:
    assert parse_page(text) == page


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", "9" * 12, "²"])
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(RejectedError):
        parse_page(text)
