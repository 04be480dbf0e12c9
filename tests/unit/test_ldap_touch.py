"""The date of the last use: once a day, later, and in nobody's way."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from hgfleet.adapters import ldap_touch
from hgfleet.adapters.ldap_touch import PAUSE_SECONDS, LastUse
from hgfleet.errors import TransientError
from hgfleet.model.ids import AccountName
from hgfleet.runtime import clock
from tests.support.waiting import wait_until

ALICE, BOB = AccountName("alice"), AccountName("bob")
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()


class Days:
    """The time, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(clock, "now", lambda: NOON + self.seconds)
        monkeypatch.setattr(clock, "monotonic", lambda: self.seconds)


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Days:
    return Days(monkeypatch)


class Written:
    """Where dates are written; broken while `error` is set."""

    def __init__(self) -> None:
        self.dates: list[tuple[AccountName, str]] = []
        self.error: TransientError | None = None

    def __call__(self, name: AccountName, date: str) -> None:
        if self.error is not None:
            raise self.error
        self.dates.append((name, date))


def test_a_date_is_written_once_a_day_and_account(days: Days) -> None:
    written = Written()
    last_use = LastUse(written)
    for _ in range(3):
        last_use.note(ALICE)
    last_use.note(BOB)
    last_use.close()
    assert written.dates == [(ALICE, "20260501120000Z"), (BOB, "20260501120000Z")]
    days.seconds += 86400
    last_use.note(ALICE)
    last_use.close()
    assert written.dates[2:] == [(ALICE, "20260502120000Z")]


@pytest.mark.parametrize(
    ("date", "count"),
    [("20260501000000Z", 0), ("20260501235959.1Z", 0), ("20260430235959Z", 1), ("", 1), ("nonsense", 1)],
)
def test_todays_date_in_the_directory_is_left_alone(days: Days, date: str, count: int) -> None:
    written = Written()
    last_use = LastUse(written)
    last_use.learn(ALICE, date)
    last_use.note(ALICE)
    last_use.close()
    assert len(written.dates) == count


def test_a_failure_is_counted_and_followed_by_a_pause(days: Days) -> None:
    written = Written()
    last_use = LastUse(written)
    written.error = TransientError("directory.unreachable", "it is broken")
    last_use.note(ALICE)
    wait_until(lambda: last_use.failures == 1, what="the failure is counted")
    written.error = None
    last_use.note(ALICE)
    last_use.close()
    assert written.dates == []
    days.seconds += PAUSE_SECONDS
    last_use.note(ALICE)
    last_use.close()
    assert [name for name, _ in written.dates] == [ALICE]


def test_a_directory_that_hangs_delays_nobody_and_what_waits_is_bounded(
    days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldap_touch, "WAITING", 2)
    release, written = threading.Event(), Written()

    def write(name: AccountName, date: str) -> None:
        release.wait()
        written(name, date)

    last_use = LastUse(write)
    for number in range(20):
        last_use.note(AccountName(f"account{number}"))
    release.set()
    last_use.close()
    assert 2 <= len(written.dates) <= 3
