"""Sessions that end badly: clients, fronts and servers that go away, garbage, full houses, stuck appends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.frames import FrameDecoder, encode_frame
from tests.support.clients import finish, run
from tests.support.fleet import FRONTS, Fleet, descendants, is_alive
from tests.support.invariants import check_repository
from tests.support.openssh import OpenSshFleet
from tests.support.repositories import WorkingCopy

SETTINGS = """
[push]
append_deadline = "1s"
lock_timeout = "3s"
[access]
service_accounts = ["lander"]
"""
SSH_SETTINGS = 'max_sessions_per_account = 3\naccount_check = "1s"\n'
EACH_FRONT = pytest.mark.parametrize("fleet", FRONTS, indirect=True)


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Fleet:
    """A fleet with little patience, behind the embedded SSH server unless a test asks for each."""
    fleet: Fleet = request.getfixturevalue(getattr(request, "param", "embedded_front"))
    return fleet


@pytest.fixture(scope="module")
def embedded_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("sessions") / "fleet"
    yield from running(Fleet(directory, config=f"{SETTINGS}[ssh]\n{SSH_SETTINGS}"))


@pytest.fixture(scope="module")
def openssh_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("openssh") / "fleet"
    yield from running(OpenSshFleet(directory, config=SETTINGS, ssh=SSH_SETTINGS))


def running(fleet: Fleet) -> Iterator[Fleet]:
    try:
        yield fleet.start()
    finally:
        fleet.close()


@pytest.fixture
def work(fleet: Fleet, repository: str, tmp_path: Path) -> Iterator[WorkingCopy]:
    """A clone with one changeset that is not pushed; afterwards no session is left, and no fault."""
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    yield work
    for path in fleet.faults.iterdir():
        path.unlink()
    for process in _started:
        process.kill()
    _started.clear()
    wait_no_sessions(fleet)


def sessions_socket(fleet: Fleet) -> Path:
    return (fleet.directory / "run" / "sessions.sock").resolve()


def open_sessions(fleet: Fleet) -> list[dict[str, Any]]:
    with LocalClient(sessions_socket(fleet)) as client:
        found: list[dict[str, Any]] = client.call("status").header["sessions"]
    return [session for session in found if session["op"] == "serve"]


_started: list[subprocess.Popen[bytes]] = []


def add_person(fleet: Fleet, name: str) -> Path:
    """Add a developer and return the private key."""
    key = fleet.directory.parent / name
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]).ok()
    fleet.cli("user", "add", name, "--group", "developers", "--key", f"{key}.pub").ok()
    return key


def start_push(
    fleet: Fleet, work: WorkingCopy, repository: str, account: str, key: Path
) -> subprocess.Popen[bytes]:
    """Start a push as somebody; the caller finishes it."""
    ssh, url = fleet.ssh_command(key), fleet.ssh_url(repository, account=account)
    return work.hg.start("push", "-f", "--config", f"ui.ssh={ssh}", url, cwd=work.directory)


def start_session(
    fleet: Fleet, repository: str, account: str = "", key: Path | None = None
) -> subprocess.Popen[bytes]:
    """Open a session by hand and wait for its hello; the fixture `work` ends it."""
    ssh = fleet.endpoints["ssh"]
    target = f"{account or fleet.endpoints['account']}@{ssh['host']}"
    words = [*fleet.ssh_command(key).split(), "-p", str(ssh["port"]), target]
    process = subprocess.Popen(
        [*words, f"hg -R {repository} serve --stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=fleet.environment(),
    )
    _started.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    size = int(process.stdout.readline())
    assert b"capabilities: " in process.stdout.read(size)
    return process


def links_of(pid: int) -> list[str]:
    """Return what a process's descriptors lead to."""
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]


def wait_no_sessions(fleet: Fleet) -> None:
    fleet.wait(lambda: not open_sessions(fleet), "no session is left")


GARBAGE = [b"", b"\xff" * 8, b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x00nope"]


def test_garbage_on_the_session_servers_socket_costs_only_its_sender(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    before = fleet.child("sessions")
    for data in GARBAGE:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(sessions_socket(fleet)))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
    for header in ({"op": "serve"}, {"op": "nothing"}, {"op": ["x"]}, {}):
        with LocalClient(sessions_socket(fleet)) as client:
            client.send(header)
            with pytest.raises((RejectedError, PoisonError)):
                client.receive()
    work.push(fleet.ssh_url(repository)).ok()
    assert fleet.child("sessions") == before


def test_a_worker_that_is_killed_while_it_waits_for_a_request_costs_nobody_a_session(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    def waiting() -> list[int]:
        return descendants(fleet.child("sessions").pid)

    work.run("id", fleet.ssh_url(repository)).ok()
    wait_no_sessions(fleet)
    fleet.wait(lambda: len(waiting()) == 1, "one worker waits")
    [spare] = waiting()
    os.kill(spare, signal.SIGKILL)
    work.push(fleet.ssh_url(repository)).ok()
    wait_no_sessions(fleet)
    fleet.wait(lambda: len(waiting()) == 1 and waiting() != [spare], "another one waits")


def test_descriptors_without_a_fitting_request_are_closed(fleet: Fleet) -> None:
    server = fleet.child("sessions").pid

    def count_open() -> int:
        return len(links_of(server))

    wait_no_sessions(fleet)
    before = count_open()
    reader, writer = os.pipe()
    for count in (1, 3, 3, 5):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(sessions_socket(fleet)))
            request = encode_frame({"op": "serve", "account": "x"})
            socket.send_fds(connection, [request], [reader, writer, writer, writer, writer][:count])
            [frame] = FrameDecoder().feed(connection.recv(65536))
            assert frame.header["ok"] is False
    os.close(reader)
    os.close(writer)
    fleet.wait(lambda: count_open() <= before, "the descriptors are closed")


def test_a_worker_has_nothing_of_its_servers(fleet: Fleet, repository: str, work: WorkingCopy) -> None:
    start_session(fleet, repository)
    [worker] = open_sessions(fleet)
    shared = set(links_of(worker["pid"])) & set(links_of(fleet.child("sessions").pid))
    assert len(shared - {"/dev/null"}) == 1, shared  # the pipe that leads to the log
    assert os.getsid(worker["pid"]) == worker["pid"]


@EACH_FRONT
def test_a_client_that_is_killed_takes_its_session_with_it(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    session = start_session(fleet, repository)
    [worker] = open_sessions(fleet)
    session.kill()
    session.communicate()
    wait_no_sessions(fleet)
    assert not is_alive(worker["pid"])


@EACH_FRONT
def test_a_client_killed_while_it_uploads_leaves_nothing_behind(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    session = start_session(fleet, repository)
    assert session.stdin is not None
    session.stdin.write(b"unbundle\nheads 10\n666f726365" + b"100000\n" + b"x" * 50_000)
    session.stdin.flush()

    def is_uploading() -> bool:
        return any(fleet.directory.rglob("sessions/*/hg-unbundle-*"))

    fleet.wait(is_uploading, "the upload has begun")
    session.kill()
    session.communicate()
    wait_no_sessions(fleet)
    fleet.wait(lambda: not is_uploading(), "the upload is removed")
    assert check_repository(fleet, repository) == []
    work.push(fleet.ssh_url(repository)).ok()


@EACH_FRONT
@pytest.mark.parametrize("role", ["sessions", "ssh"])
def test_sessions_end_with_the_process_that_carries_them(
    fleet: Fleet, repository: str, work: WorkingCopy, role: str
) -> None:
    session = start_session(fleet, repository)
    [worker] = open_sessions(fleet)

    fleet.kill_child(role)

    session.communicate(timeout=30)
    assert session.returncode != 0
    fleet.wait(lambda: not is_alive(worker["pid"]), "the worker has ended")

    def pushes() -> bool:
        return work.push(fleet.ssh_url(repository)).status == 0

    fleet.wait(pushes, f"a push works after {role} was killed")
    assert len(check_repository(fleet, repository)) == 1


@EACH_FRONT
def test_without_a_session_server_a_push_is_told_to_come_back(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    before = fleet.child("sessions")
    before.signal(signal.SIGSTOP)  # nobody answers, and the supervisor sees no death
    try:
        fleet.ssh("").ok()
        outcome = fleet.ssh(f"hg -R {repository} serve --stdio")
    finally:
        before.signal(signal.SIGCONT)
    assert outcome.status == 75
    assert outcome.err.startswith("abort: temporarily unavailable, nothing was changed: ")
    assert len(outcome.err.splitlines()) == 1
    fleet.wait(lambda: work.push(fleet.ssh_url(repository)).status == 0, "a push works again")


def test_without_a_log_agent_a_push_is_told_to_come_back(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    session = start_session(fleet, repository)
    before = fleet.child("log-agent")
    before.signal(signal.SIGKILL)
    fleet.wait_replaced(before)
    session.communicate(timeout=30)
    assert session.returncode == 0
    fleet.wait(lambda: work.push(fleet.ssh_url(repository)).status == 0, "a push works again")


def test_a_push_is_refused_before_its_data_when_the_log_agent_does_not_answer(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    session = start_session(fleet, repository)
    agent = fleet.child("log-agent")
    agent.signal(signal.SIGSTOP)
    try:
        _, err = session.communicate(b"unbundle\nheads 10\n666f726365", timeout=30)
    finally:
        agent.signal(signal.SIGCONT)
    assert err.startswith(b"abort: temporarily unavailable, nothing was changed: ")
    assert len(err.splitlines()) == 1


def test_a_size_that_no_session_may_read_is_refused_in_one_line(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    session = start_session(fleet, repository)
    _, err = session.communicate(b"unbundle\nheads 9999999999\nx", timeout=30)
    assert err == b"abort: this needs more memory than a session may have\n"
    assert session.returncode == 1


def test_connections_that_do_not_log_in_leave_room_for_those_that_do(fleet: Fleet) -> None:
    ssh = fleet.endpoints["ssh"]
    idle = [socket.create_connection((ssh["host"], ssh["port"]), timeout=10) for _ in range(130)]
    try:
        refused = [connection for connection in idle if is_closed(connection)]
        assert len(refused) >= 20
    finally:
        for connection in idle:
            connection.close()
    fleet.wait(lambda: fleet.ssh("").status == 0, "a login works")


def is_closed(connection: socket.socket) -> bool:
    """Tell whether the server closed the connection instead of greeting."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@EACH_FRONT
def test_more_sessions_than_an_account_may_have_are_told_to_come_back(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    sessions = [start_session(fleet, repository) for _ in range(3)]
    refused = fleet.ssh(f"hg -R {repository} serve --stdio")
    assert refused.status == 75
    assert "too many sessions" in refused.err
    for session in sessions:
        session.communicate(timeout=30)
        assert session.returncode == 0
    fleet.wait(lambda: fleet.ssh("").status == 0, "there is room again")
    wait_no_sessions(fleet)


def test_a_push_that_waits_for_another_one_names_it_when_it_gives_up(
    fleet: Fleet, repository: str, work: WorkingCopy, tmp_path: Path
) -> None:
    other = WorkingCopy.init(work.hg, tmp_path / "other")
    other.commit("other")
    fleet.set_fault("push-before-checks", "stall")
    first = work.hg.start("push", "-f", fleet.ssh_url(repository), cwd=work.directory)
    fleet.wait_stalled("push-before-checks")

    second = other.push(fleet.ssh_url(repository))

    assert second.status != 0
    holder = fleet.endpoints["account"]
    assert f"locked by a session of {holder}; nothing was changed" in second.text
    assert str(fleet.directory) not in second.err
    fleet.clear_fault("push-before-checks")
    finish(first).ok()
    assert len(check_repository(fleet, repository)) == 1


def test_a_session_stuck_in_its_append_is_ended_and_frees_the_lock(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    fleet.set_fault("push-handed-over", "stall")
    first = work.hg.start("push", "-f", fleet.ssh_url(repository), cwd=work.directory)
    fleet.wait_stalled("push-handed-over")
    [worker] = open_sessions(fleet)
    os.kill(worker["pid"], signal.SIGSTOP)
    fleet.clear_fault("push-handed-over")

    assert finish(first).status == 255
    assert not is_alive(worker["pid"])
    again = work.push(fleet.ssh_url(repository))
    assert again.status == 0 or "no changes found" in again.text, again
    assert len(check_repository(fleet, repository)) == 1


@EACH_FRONT
def test_a_push_is_refused_when_its_account_left_the_group_while_it_uploaded(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    key = add_person(fleet, "leaver")
    fleet.set_fault("push-before-append", "stall")
    push = start_push(fleet, work, repository, "leaver", key)
    fleet.wait_stalled("push-before-append")
    fleet.cli("user", "groups", "leaver", "readers").ok()
    fleet.clear_fault("push-before-append")

    refused = finish(push)
    assert refused.status == 255
    assert "you may not push to this repository; nothing was changed" in refused.text
    assert "Traceback" not in refused.text
    assert check_repository(fleet, repository) == []


@EACH_FRONT
def test_a_session_of_a_disabled_account_is_told_so_and_hung_up_with_its_push(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    key = add_person(fleet, "sacked")
    fleet.set_fault("push-before-checks", "stall")
    push = start_push(fleet, work, repository, "sacked", key)
    fleet.wait_stalled("push-before-checks")
    fleet.cli("user", "disable", "sacked").ok()
    wait_no_sessions(fleet)

    ended = finish(push)
    assert ended.status == 255
    assert ended.text.count("this account is disabled") == 1
    assert "Traceback" not in ended.text
    assert check_repository(fleet, repository) == []


@EACH_FRONT
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (["groups", "NAME", "readers"], b"abort: you may not push to this repository"),
        (["key", "NAME", "KEY", "--remove"], b"abort: this key is not the account's any more"),
        (["disable", "NAME"], b"abort: this account is disabled"),
    ],
    ids=["left-the-group", "lost-the-key", "disabled"],
)
def test_an_open_session_writes_with_the_rights_that_its_account_has_now(
    fleet: Fleet, repository: str, work: WorkingCopy, change: list[str], line: bytes
) -> None:
    work.push(fleet.ssh_url(repository)).ok()
    name = f"writer-{change[0]}"
    key = add_person(fleet, name)
    session = start_session(fleet, repository, name, key)
    fleet.cli("user", *(word.replace("NAME", name).replace("KEY", f"{key}.pub") for word in change)).ok()

    arguments = {"namespace": "bookmarks", "key": "mine", "old": "", "new": work.node()}
    request = "pushkey\n" + "".join(f"{key} {len(value)}\n{value}" for key, value in arguments.items())
    _, err = session.communicate(request.encode(), timeout=30)
    assert line in err
    assert b"Traceback" not in err
    assert "mine" not in work.run("identify", "-B", fleet.ssh_url(repository)).ok().out
    assert len(check_repository(fleet, repository)) == 1


@EACH_FRONT
def test_a_session_server_that_is_told_to_stop_finishes_the_push_in_hand(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    fleet.set_fault("push-before-checks", "stall")
    push = work.hg.start("push", "-f", fleet.ssh_url(repository), cwd=work.directory)
    fleet.wait_stalled("push-before-checks")
    before = fleet.child("sessions")
    before.signal(signal.SIGTERM)
    fleet.wait(lambda: not sessions_socket(fleet).exists(), "it takes no new sessions")
    fleet.clear_fault("push-before-checks")
    pushed = finish(push)
    assert "recorded push in pushlog" in pushed.text
    fleet.wait_replaced(before)
    assert len(check_repository(fleet, repository)) == 1


@EACH_FRONT
def test_a_service_account_pushes_for_the_person_it_names(
    fleet: Fleet, repository: str, work: WorkingCopy
) -> None:
    key = fleet.directory.parent / "lander"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]).ok()
    fleet.cli("user", "add", "lander", "--group", "developers", "--key", f"{key}.pub").ok()
    ssh = f"{fleet.ssh_command(key)} -o SetEnv=AUTOLAND_REQUEST_USER=carol"
    work.run("push", "--config", f"ui.ssh={ssh}", fleet.ssh_url(repository, account="lander")).ok()
    [push] = check_repository(fleet, repository)
    assert push["user"] == "carol"
    lines = [json.loads(line) for path in fleet.directory.rglob("audit*") for line in path.open()]
    assert ("lander", "carol") in {(line["account"], line["pusher"]) for line in lines}


def test_a_session_whose_sshd_is_killed_is_hung_up(
    openssh_front: OpenSshFleet, repository: str, tmp_path: Path
) -> None:
    fleet = openssh_front
    fleet.create(repository)
    session = start_session(fleet, repository)
    [worker] = open_sessions(fleet)
    for pid in sshd_processes(fleet):
        os.kill(pid, signal.SIGKILL)
    session.communicate(timeout=30)
    assert session.returncode == 255
    fleet.wait(lambda: not is_alive(worker["pid"]), "the worker has ended")


def test_sshd_may_be_started_anew_while_a_session_goes_on(
    openssh_front: OpenSshFleet, repository: str, tmp_path: Path
) -> None:
    fleet = openssh_front
    fleet.create(repository)
    session = start_session(fleet, repository)
    fleet.sshd.stop()
    assert fleet.ssh("").status == 255
    fleet.start_sshd()
    fleet.ssh("").ok()
    assert session.poll() is None
    session.communicate(timeout=30)
    assert session.returncode == 0


def test_a_reception_killed_under_a_session_leaves_its_client_in_doubt(
    openssh_front: OpenSshFleet, repository: str
) -> None:
    fleet = openssh_front
    fleet.create(repository)
    session = start_session(fleet, repository)
    fleet.kill_child("ssh")
    _, err = session.communicate(timeout=30)
    assert session.returncode == 75
    assert err == b"abort: not confirmed: it may still appear; push again to find out\n"
    wait_no_sessions(fleet)


def sshd_processes(fleet: OpenSshFleet) -> list[int]:
    """Return the processes of sshd that serve connections."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(fleet.sshd.pid)}
    return [pid for pid, name in names.items() if name.startswith(b"sshd")]
