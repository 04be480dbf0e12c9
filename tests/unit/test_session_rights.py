"""A session's worker asks what its account may do now, over a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.hgext.session_request import parse_serve
from hgfleet.hgext.session_rights import SessionRights
from hgfleet.ssh.rights import RightsService
from tests.support.receptions import LoopThread

REQUEST = parse_serve(
    {
        "account": "alice",
        "key": "SHA256:x",
        "groups": ["developers"],
        "path": "team/app",
        "repository": "0" * 31 + "1",
        "partition": 3,
        "client_address": "192.0.2.1",
        "trace": "t",
    }
)


@dataclass
class Answers:
    """What the front knows."""

    groups: frozenset[str] = frozenset()
    problem: FleetError | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def groups_now(self, account: str, key: str) -> frozenset[str]:
        self.asked.append((account, key))
        if self.problem is not None:
            raise self.problem
        return self.groups


@pytest.fixture
def answers() -> Answers:
    return Answers(frozenset({"readers"}))


@pytest.fixture
def path(tmp_path: Path, answers: Answers) -> Iterator[Path]:
    path, loop = tmp_path / "rights.sock", LoopThread()
    service = RightsService(path, answers.groups_now)
    loop.run(service.start())
    yield path
    loop.call(service.stop)
    loop.stop()


def test_the_groups_are_those_of_now_and_not_of_the_log_in(path: Path, answers: Answers) -> None:
    assert SessionRights(path, REQUEST).groups() == {"readers"}
    assert answers.asked == [("alice", "SHA256:x")]


@pytest.mark.parametrize(
    "problem",
    [
        RejectedError("account.disabled", "this account is disabled"),
        TransientError("directory.unreachable", "the directory of accounts does not answer"),
    ],
)
def test_why_an_account_has_none_or_cannot_be_asked_reaches_the_session(
    path: Path, answers: Answers, problem: FleetError
) -> None:
    answers.problem = problem
    with pytest.raises(type(problem)) as caught:
        SessionRights(path, REQUEST).groups()
    assert caught.value.code == problem.code


def test_a_front_that_is_away_permits_nothing(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        SessionRights(tmp_path / "nobody.sock", REQUEST).groups()


def test_a_front_that_breaks_off_permits_nothing_and_leaves_no_doubt(tmp_path: Path) -> None:
    path = tmp_path / "rights.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        breaking = threading.Thread(target=break_off, args=(listener,))
        breaking.start()
        with pytest.raises(TransientError) as caught:
            SessionRights(path, REQUEST).groups()
        breaking.join()
    assert caught.value.code == "rights.unknown"


def break_off(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.close()


@pytest.mark.parametrize("fields", [{}, {"account": "alice"}, {"account": 1, "key": "x"}])
def test_a_question_without_its_fields_is_refused(path: Path, fields: dict[str, object]) -> None:
    with LocalClient(path, 10) as client, pytest.raises(RejectedError):
        client.call("rights", **fields)


def test_garbage_costs_its_sender_the_connection_and_nobody_else_an_answer(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(b"\xff" * 64)
        assert stranger.recv(1) == b""
    assert SessionRights(path, REQUEST).groups() == {"readers"}
