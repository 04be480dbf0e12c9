"""What a mirror says: the newest word per key, once the one before was answered."""

from __future__ import annotations

from pathlib import Path

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.model.ids import Offset
from hgfleet.replication.mirror_reports import NotPublished, Published, Reports


class _Desk:
    """Reports whose batches end up in a list instead of a thread."""

    def __init__(self, tmp_path: Path) -> None:
        self.reports = Reports(LogAgentClient(tmp_path / "no.sock"), lambda _answer: None)

    def sent(self) -> dict[str, object] | None:
        queue = self.reports._batches
        return None if queue.empty() else queue.get_nowait()


def test_only_the_newest_word_per_key_is_sent_and_one_batch_at_a_time(tmp_path: Path) -> None:
    desk = _Desk(tmp_path)
    desk.reports.say("a", 1)
    desk.reports.say("b", 1)
    desk.reports.say("a", 2)
    desk.reports.flush(0.0)
    assert desk.sent() == {"b": 1, "a": 2}
    desk.reports.say("a", 3)
    desk.reports.flush(0.0)
    assert desk.sent() is None, "the first batch is still on its way"
    desk.reports.settle(Published({"a": 2}, 0.0, Offset(2)), 0.0, 0.0)
    desk.reports.flush(0.0)
    assert desk.sent() == {"a": 3}
    assert not desk.reports.is_idle
    desk.reports.settle(Published({"a": 3}, 0.0, Offset(3)), 0.0, 0.0)
    assert desk.reports.is_idle


def test_what_failed_is_sent_again_later_unless_something_newer_was_said(tmp_path: Path) -> None:
    desk = _Desk(tmp_path)
    desk.reports.say("a", 1)
    desk.reports.say("b", 1)
    desk.reports.flush(0.0)
    batch = desk.sent()
    assert batch is not None
    desk.reports.say("a", 2)
    desk.reports.settle(NotPublished(batch, False, "gone"), 10.0, 5.0)
    desk.reports.flush(14.0)
    assert desk.sent() is None
    assert desk.reports.next_time() == 15.0
    desk.reports.flush(15.0)
    assert desk.sent() == {"a": 2, "b": 1}


def test_an_agent_that_is_not_there_is_a_failure_not_a_doubt(tmp_path: Path) -> None:
    desk = _Desk(tmp_path)
    answer = desk.reports._send({"a": 1})
    assert isinstance(answer, NotPublished)
    assert not answer.is_in_doubt
