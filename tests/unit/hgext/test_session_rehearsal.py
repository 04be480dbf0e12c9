"""The push that nobody makes goes all the way to the log, and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mercurial import localrepo

from hgfleet.hgext import local_ui, recovery, seqfile, session_context, session_rehearsal
from hgfleet.hgext.session_rehearsal import Rehearsal


class Desk:
    """A rehearsal, and what it asked of the log."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HGRCPATH", "")
        self.ui = local_ui.load_ui(local_ui.LocalOptions("primary", "here", directory / "no.sock"))
        source = localrepo.instance(self.ui.copy(), os.fsencode(directory / "source"), True)
        self.rehearsal = Rehearsal(self.ui, directory / "target", source)
        self.store = directory / "target" / "current" / ".hg" / "store"
        self.appended = 0
        refuse = session_rehearsal._FullLog.append

        def append(log: Any, *args: Any) -> Any:
            self.appended += 1
            return refuse(log, *args)

        monkeypatch.setattr(session_rehearsal._FullLog, "append", append)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.store.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_it_reaches_the_log_each_time_and_leaves_nothing(
    desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    session_context.take_recorded()  # what other tests pushed in this process
    before = desk.files()
    for _ in range(3):
        desk.rehearsal.run()
    assert desk.appended == 3
    assert desk.files() == before
    assert session_context.take_recorded() == []
    assert capfd.readouterr() == ("", "")


def test_one_that_was_killed_in_the_middle_does_not_spoil_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = desk.files()

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(session_rehearsal._FullLog, "append", lambda *_: os._exit(9))
        desk.rehearsal.run()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert desk.store.joinpath("journal").exists()
    desk.rehearsal.run()
    assert desk.appended == 1
    assert desk.files() == before


def test_a_disk_that_takes_nothing_is_no_reason_to_fail(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recovery, "check_under_lock", fail)
    desk.rehearsal.run()
    assert desk.appended == 0
    assert seqfile.read(desk.store.parent.parent) is not None
