"""What `make bench` says about what it measured."""

from __future__ import annotations

import pytest

from bench.report import format_markdown, format_table, from_json, to_json
from bench.series import Goal, Row, Series, milliseconds
from bench.tap import Turns


def row(ours: float, plain: float | None, goal: Goal | None, ratio_of: str = "ours/plain") -> Row:
    beside = Series("ms", (plain,)) if plain is not None else None
    return Row("push", "a push", Series("ms", (ours,)), beside, "plain", goal, ratio_of)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    series = Series("ms", (5, 1, 4, 2, 3))
    assert [series.percentile(percent) for percent in (0, 10, 50, 90, 99)] == [1, 1, 3, 5, 5]
    assert series.median == 3


def test_one_stalled_run_does_not_speak_for_all() -> None:
    assert milliseconds([0.001, 0.002, 9.0]).median == pytest.approx(2)


def test_a_ratio_says_how_small_ours_is_or_how_many_times_the_other_one_fits() -> None:
    assert row(30, 60, None).ratio == 0.5
    assert row(30, 60, None, "plain/ours").ratio == 2
    assert row(30, None, None).ratio is None


@pytest.mark.parametrize(
    ("ours", "plain", "goal", "is_met"),
    [
        (30, 60, Goal(0.5), True),
        (31, 60, Goal(0.5), False),
        (30, None, Goal(30, "ms"), True),
        (30, 60, None, None),
    ],
)
def test_a_goal_is_kept_missed_or_absent(
    ours: float, plain: float | None, goal: Goal | None, is_met: bool | None
) -> None:
    assert row(ours, plain, goal).is_met is is_met


def test_more_is_better_where_the_goal_is_at_least() -> None:
    goal = Goal(10, at_most=False)
    rates = [Row("read", "x", Series("/s", (100,)), Series("/s", (rate,)), "", goal) for rate in (10, 11)]
    assert [each.is_met for each in rates] == [True, False]


def test_a_goal_for_a_percentile_looks_at_that_percentile() -> None:
    slow_once = Series("ms", (1.0,) * 97 + (900.0,) * 3)
    assert Row("expose", "x", slow_once, goal=Goal(60, "ms")).is_met
    slow = Row("expose", "x", slow_once, goal=Goal(250, "ms", percent=99))
    assert not slow.is_met
    assert "900 ms (p99)" in format_table([slow])


def test_a_missed_goal_is_shown_like_any_other() -> None:
    rows = [row(60, 60, Goal(0.5)), row(30, 60, Goal(0.5))]
    for text in (format_table(rows), format_markdown(rows)):
        assert "NO" in text
        assert "yes" in text


def test_rows_come_back_from_json_as_they_were() -> None:
    rows = [row(30, 60, Goal(0.5)), row(30, None, Goal(250, "ms", percent=99)), row(1, None, None)]
    assert from_json(to_json(rows)) == rows


def test_only_the_servers_turns_are_counted() -> None:
    turns = Turns(asked_at=0.0)
    turns.client_spoke(0.1)  # it greets before it was greeted: the server has been starting all the time
    turns.server_spoke(0.5)
    turns.client_spoke(2.0)  # it has thought for long
    turns.client_spoke(2.1)  # a second part of what it asks
    turns.server_spoke(2.2)
    turns.server_spoke(2.4)
    assert turns.finish() == pytest.approx([0.5, 0.3])


def test_a_session_that_says_nothing_has_no_turns() -> None:
    assert Turns(asked_at=0.0).finish() == []


def test_a_ratio_far_below_one_is_not_shown_as_nothing() -> None:
    small = row(7, 3500, Goal(0.003))
    assert small.is_met
    assert "0.002 ×" in format_table([small])
    assert "≤ 0.003 ×" in format_table([small])
