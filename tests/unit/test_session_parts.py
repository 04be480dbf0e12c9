"""The parts of a session: who may use which wire command, what a pusher reads, places for readers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hgfleet.errors import RejectedError, TransientError
from hgfleet.hgext.session_context import RecordedChange, SessionPage
from hgfleet.hgext.session_lines import recorded_lines, visibility_line
from hgfleet.hgext.session_places import Places
from hgfleet.hgext.session_request import parse_serve

URL = "https://hg.example.org/team/app"

# In a process of its own, as it changes the process for good.
GUARD = """
import json
from mercurial import initialization, wireprotov1server as server, wireprototypes
initialization.init()
server.wireprotocommand(b"evil", permission=b"pull")(lambda repo, proto: b"evil")
from hgfleet.errors import RejectedError
from hgfleet.hgext.session_permissions import Need, guard_commands

asked, written = [], []
def check(need):
    asked.append(need.value)
    if need is Need.WRITE:
        raise RejectedError("access.write", "no")
guard_commands(check, lambda: written.append(1))
refused = {}
for name in (b"unbundle", b"pushkey"):
    answer = server.commands[name].func(None, None, *[b""] * len(server.commands[name].args.split()))
    refused[name.decode()] = [type(answer).__name__, answer.message.decode()]
batches = {}
for commands in (b"evil ;heads ", b"unbundle heads=", b"getbundle ", b"batch cmds=", b"", b"hea"):
    answer = server.commands[b"batch"].func(None, None, commands, {})
    batches[commands.decode()] = type(answer).__name__
needs = sorted(name.decode() for name in server.commands)
print(json.dumps({"commands": needs, "refused": refused, "batches": batches, "written": written}))
"""


@pytest.fixture(scope="module")
def guarded() -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", GUARD], capture_output=True, text=True, check=True)
    value: dict[str, object] = json.loads(done.stdout)
    return value


def test_a_wire_command_that_nobody_declared_is_not_served(guarded: dict[str, object]) -> None:
    commands = guarded["commands"]
    assert isinstance(commands, list)
    assert "evil" not in commands
    assert "debugwireargs" not in commands
    assert {"hello", "getbundle", "unbundle", "pushkey"} <= set(commands)


def test_a_write_is_refused_before_its_data_is_read(guarded: dict[str, object]) -> None:
    assert guarded["refused"] == {
        "unbundle": ["ooberror", "abort: no"],
        "pushkey": ["ooberror", "abort: no"],
    }
    assert guarded["written"] == []


def test_a_batch_holds_declared_reads_and_nothing_else(guarded: dict[str, object]) -> None:
    batches = guarded["batches"]
    assert isinstance(batches, dict)
    assert set(batches.values()) == {"ooberror"}, batches


def changes(count: int) -> list[RecordedChange]:
    return [RecordedChange(7, 3, tuple(f"{number:040x}" for number in range(count)))]


def test_one_changeset_is_named() -> None:
    assert list(recorded_lines(URL, changes(1))) == [
        "recorded push in pushlog",
        "",
        "View your change here:",
        f"  {URL}/rev/{0:040x}",
    ]


def test_up_to_ten_changesets_are_named() -> None:
    lines = list(recorded_lines(URL, changes(10)))
    assert "View your changes here:" in lines
    assert len([line for line in lines if "/rev/" in line]) == 10


def test_more_are_found_in_the_pushlog() -> None:
    lines = list(recorded_lines(URL, changes(11)))
    assert lines[-2:] == [
        "View the pushlog for these changes here:",
        f"  {URL}/pushloghtml?changeset={10:040x}",
    ]


def test_nothing_recorded_is_nothing_said() -> None:
    assert list(recorded_lines(URL, [])) == []
    assert "pushlog" not in " ".join(recorded_lines(URL, [RecordedChange(8, None, ())]))


def test_visible_on_all_is_said_only_when_it_is_so() -> None:
    assert visibility_line(is_visible=True, mirrors=["m1", "m2"], late=[]) == "visible on all 2 mirrors"
    assert visibility_line(is_visible=False, mirrors=["m1", "m2"], late=["m2"]) == (
        "accepted; not yet visible on m2"
    )
    assert "not yet visible" in visibility_line(is_visible=False, mirrors=[], late=[])
    assert "not yet visible" in visibility_line(is_visible=True, mirrors=[], late=[])


HOLD = """
import sys
from pathlib import Path
from hgfleet.hgext.session_places import Places
Places(Path(sys.argv[1]), 1).take(0.0)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_place_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "places"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        places = Places(path, 1)
        with pytest.raises(TransientError) as caught:
            places.take(0.05)
        assert caught.value.code == "sessions.reads-full"
    finally:
        holder.kill()
        holder.communicate()
    places.take(0.0)
    places.give_back()


def test_a_deadline_page_is_over_only_after_its_time() -> None:
    page = SessionPage()
    assert not page.is_over(10.0)
    page.set_deadline(9.0)
    assert page.is_over(10.0)
    assert not page.is_over(8.0)
    page.set_deadline(0.0)
    assert not page.is_over(10.0)
    assert page.recorded == (0, 0)
    page.note_recorded(7)
    page.note_recorded(9)
    assert page.recorded == (2, 9)
    page.close()


GOOD = {
    "account": "alice",
    "key": "SHA256:x",
    "groups": ["developers"],
    "path": "team/app",
    "repository": "0" * 31 + "1",
    "partition": 3,
    "client_address": "192.0.2.1",
    "trace": "t",
}


def test_a_request_names_its_pusher_or_means_the_account() -> None:
    assert parse_serve(GOOD).pusher == "alice"
    assert parse_serve(GOOD | {"pusher": "carol"}).pusher == "carol"


@pytest.mark.parametrize(
    "change",
    [
        {"account": "-x"},
        {"account": 3},
        {"groups": "developers"},
        {"groups": [1]},
        {"key": None},
        {"path": "../x"},
        {"repository": "x"},
        {"partition": True},
        {"partition": -1},
        {"trace": None},
        {"pusher": "a b"},
    ],
)
def test_a_request_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RejectedError):
        parse_serve(GOOD | change)
