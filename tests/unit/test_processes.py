"""Processes start from argument lists, end with whoever started them, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from hgfleet.adapters.processes import PIPE, Program, find_program, run, start
from hgfleet.errors import ConfigError, TransientError
from tests.support.fleet import is_alive
from tests.support.waiting import wait_until

SLEEPER = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from hgfleet.adapters.processes import Program, start
child = start(Program((sys.executable, "-S", "-c", "import time; time.sleep(60)")))
print(child.pid, flush=True)
time.sleep(60)
"""
GRANDPARENT = """
import os, sys, time
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("forked", flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_a_child_is_killed_when_whoever_started_it_is_killed() -> None:
    source = str(Path(__file__).parents[2] / "src")
    parent = start(Program((sys.executable, "-c", PARENT, source), stdout=PIPE))
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), what="the child ends with its parent")
    assert parent.wait(10) == 128 + signal.SIGKILL
    parent.close()


def test_an_end_is_reported_with_its_status_and_takes_the_rest_of_the_group_with_it() -> None:
    child = start(Program((sys.executable, "-S", "-c", GRANDPARENT, "0.05"), stdout=PIPE))
    assert child.stdout.readline() == b"forked\n"
    assert child.wait(10) == 0
    wait_until(lambda: not _group(child.pid), what="the group ends with its leader")
    child.close()


def test_kill_ends_the_whole_group() -> None:
    child = start(Program((sys.executable, "-S", "-c", GRANDPARENT, "60"), stdout=PIPE))
    assert child.stdout.readline() == b"forked\n"
    assert child.kill() == 128 + signal.SIGKILL
    wait_until(lambda: not _group(child.pid), what="the group ends")
    child.close()


def test_a_stopped_child_still_obeys_terminate() -> None:
    child = start(Program(SLEEPER))
    child.send_signal(signal.SIGSTOP)
    assert child.stop(10) == 128 + signal.SIGTERM
    assert child.exit_status() == 128 + signal.SIGTERM
    child.close()


def test_a_child_that_ignores_terminate_is_killed_after_the_grace() -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    child = start(Program((sys.executable, "-S", "-c", code), stdout=PIPE))
    assert child.stdout.readline() == b"x\n"
    assert child.stop(0.1) == 128 + signal.SIGKILL
    child.close()


def test_waiting_for_a_running_child_times_out_with_nothing() -> None:
    child = start(Program(SLEEPER))
    assert child.wait(0.05) is None
    assert child.exit_status() is None
    child.kill()
    child.close()


def test_arguments_reach_the_program_as_they_are() -> None:
    code = "import sys; sys.stdout.write(repr(sys.argv[1:]))"
    words = ("$(id)", "a b", "-x", "'\n\"")
    child = start(Program((sys.executable, "-S", "-c", code, *words), stdout=PIPE))
    assert child.stdout.read().decode() == repr(list(words))
    child.wait(10)
    child.close()


def test_a_missing_program_is_a_configuration_error_with_its_name() -> None:
    with pytest.raises(ConfigError, match="no-such-program"):
        start(Program(("no-such-program",)))
    with pytest.raises(ConfigError):
        find_program("/nowhere/at-all")


def test_a_short_command_returns_status_and_output_or_says_that_it_took_too_long() -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('e'); sys.exit(3)"
    done = run(Program((sys.executable, "-S", "-c", code)), 10, stdin=b"in")
    assert (done.status, done.stdout, done.stderr) == (3, b"in", b"e")
    with pytest.raises(TransientError, match="took too long"):
        run(Program(SLEEPER), 0.1)


def _group(leader: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == leader:
                members.append(int(entry.name))
    return members
