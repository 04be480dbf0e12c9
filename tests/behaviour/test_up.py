"""`hgfleet up`: what a person and a script rely on."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import clean_environment, run
from tests.support.fleet import Fleet, descendants, is_alive
from tests.support.invariants import check_repository, get
from tests.support.repositories import WorkingCopy
from tests.support.waiting import wait_until

ROLES = {"ssh", "sessions", "log-agent", "applier", "web", "clones", "coordinator", "bundler", "proxy"}


@pytest.fixture
def own_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that a test may stop and kill."""
    fleet = Fleet(tmp_path / "fleet")
    try:
        yield fleet
    finally:
        fleet.close()


def everything_of(fleet: Fleet) -> list[int]:
    """Return the pids of all processes of a fleet, workers of workers included."""
    pids = [child.pid for child in fleet.children()]
    return pids + [grandchild for pid in pids for grandchild in descendants(pid)]


def admin(fleet: Fleet, path: str) -> Any:
    with urllib.request.urlopen(f"{fleet.endpoints['admin']}{path}", timeout=10) as answer:
        return answer.read().decode()


def printed_commands(fleet: Fleet) -> str:
    lines = fleet.output().partition("Try it")[2].splitlines()
    return "\n".join(line.strip() for line in lines if line.startswith("  "))


def test_the_printed_commands_work_as_they_are_in_an_empty_directory(
    two_mirrors: Fleet, tmp_path: Path
) -> None:
    env = clean_environment(tmp_path)
    bare = {"PATH": env["PATH"], "HOME": env["HOME"]}

    done = run(["sh", "-e", "-c", printed_commands(two_mirrors)], cwd=tmp_path, env=bare).ok()

    assert "visible on all 2 mirrors" in done.text
    assert (tmp_path / "demo-clone" / "hello.txt").read_text() == "hello\n"
    check_repository(two_mirrors, "demo")


def test_endpoints_name_every_part_with_absolute_paths(two_mirrors: Fleet) -> None:
    endpoints = two_mirrors.endpoints
    processes = two_mirrors.children()

    assert {child.role for child in processes} == ROLES
    assert {child.host for child in processes if child.role in {"web", "applier"}} == {"mirror1", "mirror2"}
    assert all(is_alive(child.pid) for child in processes)
    assert len({child.pid for child in processes}) == len(processes)
    assert all(
        Path(endpoints[name]).is_absolute() and Path(endpoints[name]).exists()
        for name in ("ca_file", "key_file")
    )
    for name in ("http", "https", "admin"):
        assert endpoints[name].startswith(f"{'https' if name == 'https' else 'http'}://localhost:")
    assert two_mirrors.output().splitlines().count("ready") == 1


def test_a_second_up_on_the_same_directory_is_refused_and_names_the_first(one_mirror: Fleet) -> None:
    refused = one_mirror.cli("up", "--dir", str(one_mirror.directory), "--ssh-port", "0")

    assert refused.status == 1
    [line] = refused.err.splitlines()
    assert line.startswith("hgfleet: a fleet runs in this directory already, as process ")
    pid = int(line.split("as process ")[1].split()[0])
    assert is_alive(pid)


def test_a_taken_port_is_said_by_name_before_anything_starts(own_fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = ["--ssh-port", "0", "--http-port", "0", "--https-port", str(port), "--admin-port", "0"]
        refused = own_fleet.cli("up", "--dir", str(own_fleet.directory), *ports)

    assert refused.status == 78
    assert refused.err == f"hgfleet: port {port} (HTTPS) is taken; choose another with --https-port\n"
    assert not (own_fleet.directory / "endpoints.json").exists()


def test_more_than_one_mirror_without_haproxy_is_refused_in_one_line(own_fleet: Fleet) -> None:
    own_fleet.directory.mkdir()
    (own_fleet.directory / "hgfleet.toml").write_text('[proxy]\nprogram = "no-such-haproxy"\n')
    ports = ["--ssh-port", "0", "--http-port", "0", "--https-port", "0", "--admin-port", "0"]

    refused = own_fleet.cli("up", "--dir", str(own_fleet.directory), "--mirrors", "2", *ports)

    assert refused.status == 78
    assert "make setup" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_stopped_or_killed_it_leaves_nothing_running_and_the_next_start_keeps_everything(
    own_fleet: Fleet, tmp_path: Path
) -> None:
    own_fleet.start()
    own_fleet.create("kept")
    work = WorkingCopy.init(own_fleet.client(), tmp_path / "work")
    push_one(own_fleet, work, "first")
    pids, ca = everything_of(own_fleet), Path(own_fleet.ca_file).read_bytes()
    key = own_fleet.endpoints["key_file"]

    assert own_fleet.stop(signal.SIGTERM) == 0

    assert not [pid for pid in pids if is_alive(pid)]
    own_fleet.start()
    assert Path(own_fleet.ca_file).read_bytes() == ca
    assert own_fleet.endpoints["key_file"] == key
    push_one(own_fleet, work, "second")
    pids = everything_of(own_fleet)

    own_fleet.kill()

    wait_until(lambda: not [p for p in pids if is_alive(p)], what="nothing is left", deadline_seconds=5)
    own_fleet.start()
    push_one(own_fleet, work, "third")
    assert len(check_repository(own_fleet, "kept")) == 3
    assert own_fleet.stop(signal.SIGINT) == 0


def push_one(fleet: Fleet, work: WorkingCopy, text: str) -> None:
    work.commit(text)
    work.push(fleet.ssh_url("kept")).ok()


def test_every_process_that_dies_is_replaced_and_named_anew(own_fleet: Fleet, tmp_path: Path) -> None:
    own_fleet.start()
    own_fleet.create("kept")
    work = WorkingCopy.init(own_fleet.client(), tmp_path / "work")

    for child in own_fleet.children():
        os.kill(child.pid, signal.SIGKILL)
    for child in own_fleet.children():
        own_fleet.wait_replaced(child) if not is_alive(child.pid) else None

    node = work.commit("after")
    own_fleet.wait(lambda: work.push(own_fleet.ssh_url("kept")).status in {0, 1}, "a push works again")
    own_fleet.wait(
        lambda: work.hg.run("identify", "-r", node, own_fleet.https_url("kept")).status == 0,
        "the mirror shows it",
    )
    check_repository(own_fleet, "kept")


def test_unfinished_heads_on_the_admin_listener_are_ended_and_keep_nobody_from_asking(
    two_mirrors: Fleet,
) -> None:
    target = urllib.parse.urlsplit(two_mirrors.endpoints["admin"])
    with ExitStack() as stack:
        address = (target.hostname, target.port)
        silent = [stack.enter_context(socket.create_connection(address, 60)) for _ in range(20)]
        for connection in silent:
            connection.sendall(b"GET /-/status HTTP/1.1\r\n")
        assert json.loads(admin(two_mirrors, "/-/status"))
        for connection in silent:
            while connection.recv(4096):
                pass


def test_status_and_metrics_are_on_the_admin_listener_only(two_mirrors: Fleet) -> None:
    status = json.loads(admin(two_mirrors, "/-/status"))
    metrics = admin(two_mirrors, "/-/metrics")

    assert status["problems"] == []
    assert {member["host"] for member in status["members"] if member["is_counted"]} == {"mirror1", "mirror2"}
    assert status["release"]
    assert len(status["configuration_digest"]) == 64
    assert 'hgfleet_mirror_in_service{host="mirror2"} 1.0' in metrics
    assert "<table>" in admin(two_mirrors, "/")
    for path in ("-/status", "-/metrics"):
        assert get(two_mirrors, two_mirrors.https_url(path))[0] == 404


def test_the_status_command_says_the_same(two_mirrors: Fleet) -> None:
    shown = two_mirrors.cli("status").ok().out

    assert "log agent serving" in shown
    assert all(name in shown for name in ("mirror1", "mirror2", "sessions-primary"))
    assert two_mirrors.cli_json("status")["problems"] == []


def test_the_log_files_are_json_lines(two_mirrors: Fleet) -> None:
    names = {path.stem for path in (two_mirrors.directory / "logs").glob("*.log")}
    assert {
        "up",
        "log-agent",
        "sessions-primary",
        "ssh-primary",
        "applier-mirror1",
        "web-mirror2",
        "proxy",
    } <= names
    for path in (two_mirrors.directory / "logs").glob("*.log"):
        assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_command_without_a_fleet_says_so_in_one_line(tmp_path: Path) -> None:
    env = clean_environment(tmp_path)
    done = run(shlex.split("hgfleet repo list"), cwd=tmp_path, env=env)

    assert done.status == 78
    assert done.err.startswith("hgfleet: no configuration here")
    assert len(done.err.splitlines()) == 1
