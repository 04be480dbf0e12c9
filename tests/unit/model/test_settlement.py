"""What became of an append, and when it may be told."""

import pytest

from hgfleet.errors import InvariantError, RejectedError, TransientError
from hgfleet.model.acceptance import PartitionReader
from hgfleet.model.ids import NO_DIGEST, Digest, Epoch, Offset, Seq
from hgfleet.model.message import Kind, Message
from hgfleet.model.settlement import (
    Appends,
    Outcome,
    Settled,
    check_append,
    handed_over,
    outcome_of_earlier,
)
from tests.support.messages import R1, R2, Chain, epoch, message


class Agent:
    """A reader and its appends."""

    def __init__(self) -> None:
        self.reader = PartitionReader()
        self.appends = Appends()

    def read(self, m: Message) -> list[Settled]:
        verdict = self.reader.take(m, Offset(self.reader.position.offset + 1))
        return self.appends.observe(m, verdict, self.reader.epoch)


@pytest.fixture
def agent() -> Agent:
    agent = Agent()
    agent.read(epoch(1))
    return agent


def outcomes(settled: list[Settled]) -> list[tuple[str, str]]:
    return [(one.outcome.value, one.code) for one in settled]


def test_an_append_is_accepted_when_its_own_digest_counts(agent: Agent) -> None:
    push = Chain().next(Kind.PUSH)
    agent.appends.begin(handed_over(push))
    assert agent.appends.is_closed(R1)
    assert outcomes(agent.read(push)) == [("accepted", "")]
    assert not agent.appends.is_closed(R1)


def test_an_append_is_refused_when_another_took_its_seq(agent: Agent) -> None:
    chain = Chain()
    push, other = chain.peek(Kind.PUSH, trace="a"), chain.peek(Kind.PUSH, trace="b")
    agent.appends.begin(handed_over(push))
    assert outcomes(agent.read(other)) == [("refused", "push.raced")]
    assert agent.read(push) == []


def test_an_append_is_refused_when_a_newer_epoch_was_read_first(agent: Agent) -> None:
    push = Chain().next(Kind.PUSH)
    agent.appends.begin(handed_over(push))
    assert agent.read(epoch(1)) == []
    assert outcomes(agent.read(epoch(2))) == [("refused", "epoch.lost")]


def test_what_does_not_count_settles_nothing(agent: Agent) -> None:
    chain = Chain()
    push = chain.peek(Kind.PUSH)
    agent.appends.begin(handed_over(push))
    other = Chain(R2)
    late = message(Kind.PUSH, R1, 1, NO_DIGEST, epoch=0)
    about = message(Kind.SNAPSHOT, R1, 1)
    for m in (other.next(Kind.CREATED), late, about):
        assert agent.read(m) == []
    assert agent.appends.unsettled(R1) == handed_over(push)


def test_only_one_append_of_a_repository_is_unsettled(agent: Agent) -> None:
    chain, other = Chain(R1), Chain(R2)
    push = chain.next(Kind.PUSH)
    agent.appends.begin(handed_over(push))
    with pytest.raises(TransientError) as refused:
        agent.appends.begin(handed_over(chain.peek(Kind.PUSH)))
    assert refused.value.code == "log.unsettled"
    agent.appends.begin(handed_over(other.next(Kind.PUSH)))
    agent.read(push)
    agent.appends.begin(handed_over(chain.next(Kind.PUSH)))


def test_an_unanswered_append_asks_for_a_void_until_it_is_settled(agent: Agent) -> None:
    chain = Chain()
    push, void = chain.peek(Kind.PUSH), chain.peek(Kind.VOID)
    agent.appends.begin(handed_over(push))
    assert agent.appends.voids() == []
    agent.appends.leave_unanswered(R1)
    assert agent.appends.voids() == agent.appends.voids() == [handed_over(push)]
    assert outcomes(agent.read(void)) == [("refused", "push.raced")]
    assert agent.appends.voids() == []
    assert agent.read(push) == []


def test_a_message_that_beats_its_void_is_accepted(agent: Agent) -> None:
    chain = Chain()
    push, void = chain.peek(Kind.PUSH), chain.peek(Kind.VOID)
    agent.appends.begin(handed_over(push))
    agent.appends.leave_unanswered(R1)
    assert outcomes(agent.read(push)) == [("accepted", "")]
    assert agent.read(void) == []


def test_what_the_log_surely_did_not_take_was_refused(agent: Agent) -> None:
    push = Chain().next(Kind.PUSH)
    agent.appends.begin(handed_over(push))
    assert agent.appends.withdraw(R1).outcome is Outcome.REFUSED
    assert not agent.appends.is_closed(R1)


def test_an_append_in_doubt_cannot_be_withdrawn(agent: Agent) -> None:
    agent.appends.begin(handed_over(Chain().next(Kind.PUSH)))
    agent.appends.leave_unanswered(R1)
    with pytest.raises(InvariantError):
        agent.appends.withdraw(R1)


def test_leaving_a_settled_append_unanswered_asks_for_nothing(agent: Agent) -> None:
    push = Chain().next(Kind.PUSH)
    agent.appends.begin(handed_over(push))
    agent.read(push)
    agent.appends.leave_unanswered(R1)
    assert agent.appends.voids() == []


@pytest.mark.parametrize(
    ("is_in_log", "serving_epoch", "outcome"),
    [
        (True, 3, Outcome.ACCEPTED),
        (True, 0, Outcome.ACCEPTED),
        (False, 3, Outcome.REFUSED),
        (False, 2, Outcome.UNSETTLED),
        (False, 0, Outcome.UNSETTLED),
    ],
)
def test_absence_tells_something_only_behind_a_newer_epoch(
    is_in_log: bool, serving_epoch: int, outcome: Outcome
) -> None:
    told = outcome_of_earlier(is_in_log, append_epoch=Epoch(2), serving_epoch=Epoch(serving_epoch))
    assert told is outcome


def append_code(agent: Agent, own_epoch: int, seq: int, digest: Digest) -> str:
    try:
        check_append(agent.reader, Epoch(own_epoch), R1, Seq(seq), digest)
    except (TransientError, RejectedError) as error:
        return error.code
    return ""


def test_an_append_needs_the_base_that_was_read_in_the_own_epoch(agent: Agent) -> None:
    chain = Chain()
    created, push = chain.next(Kind.CREATED), chain.next(Kind.PUSH)
    agent.read(created)
    agent.read(push)
    assert append_code(agent, 1, 2, push.digest) == ""
    assert append_code(agent, 1, 1, created.digest) == "push.raced"
    assert append_code(agent, 1, 3, push.digest) == "log.behind"
    assert append_code(agent, 1, 2, created.digest) == "log.behind"
    assert append_code(agent, 0, 2, push.digest) == "log.not-serving"
    assert append_code(agent, 2, 2, push.digest) == "log.not-serving"
    agent.read(epoch(2))
    assert append_code(agent, 1, 2, push.digest) == "log.not-serving"
    agent.read(message(Kind.PUSH, R1, 9, epoch=2))
    assert append_code(agent, 2, 2, push.digest) == "repo.parked"


def test_before_any_epoch_nobody_serves() -> None:
    assert append_code(Agent(), 0, 0, NO_DIGEST) == "log.not-serving"
