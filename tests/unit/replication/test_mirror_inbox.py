"""What may wait does not wake, and is not overtaken."""

from __future__ import annotations

import threading

from hgfleet.model.ids import Offset
from hgfleet.replication.mirror_inbox import Inbox
from hgfleet.replication.mirror_reports import NotPublished, Published, is_routine

REPORT, HEARTBEAT = "report/m/1/" + "a" * 32, "member/m/1"


def test_what_may_wait_is_heard_in_its_place_with_what_does_not() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1, may_wait=True)
    inbox.put(2)
    inbox.put(3, may_wait=True)
    assert len(inbox) == 3
    assert list(inbox.take(600)) == [1, 2, 3]
    assert len(inbox) == 0


def test_what_may_wait_is_heard_when_the_time_is_over() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1, may_wait=True)
    assert list(inbox.take(0)) == [1]
    assert list(inbox.take(0)) == []


def test_whoever_waits_is_woken_by_another_thread() -> None:
    inbox: Inbox[int] = Inbox()
    heard: list[int] = []
    waiting = threading.Thread(target=lambda: heard.extend(inbox.take(600)))
    waiting.start()
    inbox.put(1, may_wait=True)
    inbox.wake()
    waiting.join(30)
    assert heard == [1]


def test_only_reports_that_were_taken_are_routine() -> None:
    assert is_routine(Published({REPORT: {}}, 0.0, Offset(1)))
    assert not is_routine(Published({REPORT: {}, HEARTBEAT: {}}, 0.0, Offset(1))), "a lease depends on it"
    assert not is_routine(NotPublished({REPORT: {}}, False, "gone"))
