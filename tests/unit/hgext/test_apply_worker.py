"""The apply worker's operations, asked as the applier asks them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hgfleet.adapters import view_files
from hgfleet.hgext.apply_worker import MAX_OPEN_COPIES, ApplyWorker, serve
from hgfleet.model.frames import Frame, FrameDecoder, encode_frame
from hgfleet.model.ids import Seq
from tests.support import local_copies
from tests.support.local_copies import PARTITION, REPOSITORY, Fleet, commit


class Asked:
    """A worker, and a mirror's directory for it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.worker = ApplyWorker(local_copies.ui("mirror"))
        self.directory = fleet.directory / "mirror" / REPOSITORY

    def ask(self, op: str, body: bytes = b"", **fields: Any) -> dict[str, Any]:
        header = {"op": op, "directory": str(self.directory), **fields}
        return self.worker.answer(Frame(header, body))

    def apply(self, after_seq: int, **changes: Any) -> dict[str, Any]:
        batch = self.fleet.agent.read(REPOSITORY, after_seq).messages
        fields: dict[str, Any] = {
            "repository": REPOSITORY,
            "partition": PARTITION,
            "messages": [
                {
                    "size_bytes": len(m.wire),
                    "seq": m.seq,
                    "offset": m.position.offset,
                    "epoch": m.position.epoch,
                }
                for m in batch
            ],
            "snapshot_each": True,
            "blob_directory": str(self.fleet.directory / "blobs"),
        }
        return self.ask("apply", b"".join(m.wire for m in batch), **fields | changes)

    @property
    def hg_directory(self) -> Path:
        return self.directory / "current" / ".hg"

    def views(self) -> list[int]:
        return [int(seq) for seq in view_files.view_seqs(self.hg_directory)]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    fleet = Fleet.make(tmp_path)
    for number in range(3):
        commit(fleet.repo, f"change {number}")
    return Asked(fleet)


def test_messages_are_applied_with_a_view_at_each_seq_or_at_the_last(asked: Asked, tmp_path: Path) -> None:
    answer = asked.apply(0)
    assert (answer["ok"], answer["applied_seq"], answer["pushes"]) == (True, 4, 3)
    assert asked.views() == [1, 2, 3, 4]
    asked.directory = tmp_path / "other" / REPOSITORY
    assert asked.apply(0, snapshot_each=False)["digest"] == answer["digest"]
    assert asked.views() == [1, 4]


def test_messages_delivered_twice_change_nothing(asked: Asked) -> None:
    asked.apply(0)
    before = asked.ask("digest")
    files = local_copies.files_of(asked.fleet.replica())
    for after_seq in (0, 2):
        assert asked.apply(after_seq)["applied_seq"] == 4
    assert asked.ask("digest") == before
    assert local_copies.files_of(asked.fleet.replica()) == files


def test_inspecting_tells_where_a_copy_stands_and_makes_the_view_that_a_crash_left_out(asked: Asked) -> None:
    assert asked.ask("inspect") == {
        "ok": True,
        "seq": 0,
        "digest": "",
        "offset": 0,
        "epoch": 0,
        "fingerprint": None,
    }
    asked.apply(0)
    (asked.hg_directory / "hgfleet-views" / "4.json").unlink()
    asked.ask("forget")
    found = asked.ask("inspect")
    assert (found["seq"], found["digest"]) == (4, asked.fleet.state.digest)
    assert asked.views() == [1, 2, 3, 4]


def test_a_message_that_does_not_fit_is_named_with_how_far_the_copy_came(asked: Asked) -> None:
    asked.apply(0)
    (asked.hg_directory / "store" / "phaseroots").write_bytes(b"")
    commit(asked.fleet.repo, "one more")
    answer = asked.apply(4)
    assert not answer["ok"]
    assert answer["error"]["class"] == "PoisonError"
    assert answer["error"]["code"] == "state.differs"
    assert answer["error"]["context"]["applied_seq"] == 4
    assert asked.ask("inspect")["seq"] == 4


def test_a_copy_built_beside_takes_the_place_of_the_one_in_use(asked: Asked) -> None:
    asked.apply(0)
    old = (asked.directory / "current").resolve()
    built = asked.directory / "rebuild"
    asked.apply(0, directory=str(built))
    answer = asked.ask("adopt", built=str(built))
    assert answer["seq"] == 4
    new = (asked.directory / "current").resolve()
    assert (old.name, new.name) == ("g1", "g2")
    assert not old.exists()
    assert not built.exists()
    assert asked.ask("adopt", built=str(built))["seq"] == 4, "asked again it has nothing to do"
    commit(asked.fleet.repo, "one more")
    assert asked.apply(4)["applied_seq"] == 5


def test_a_disk_that_does_not_take_it_is_a_failure_that_may_pass(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked.apply(0)
    monkeypatch.setenv("HGFLEET_FAULTS", str(tmp_path))
    (tmp_path / "apply-before-close").write_text("enospc")
    asked.ask("forget")
    commit(asked.fleet.repo, "one more")
    answer = asked.apply(4)
    assert answer["error"]["class"] == "TransientError"
    assert asked.apply(4)["applied_seq"] == 5


def test_an_unknown_operation_is_refused(asked: Asked) -> None:
    assert asked.ask("nonsense")["error"]["code"] == "worker.bad-request"


def test_only_so_many_copies_stay_open(asked: Asked, tmp_path: Path) -> None:
    for number in range(MAX_OPEN_COPIES + 5):
        asked.directory = tmp_path / f"copy{number}" / REPOSITORY
        asked.ask("inspect")
    assert len(asked.worker._copies) == MAX_OPEN_COPIES


def test_requests_in_one_stream_are_answered_in_order_until_it_ends(asked: Asked) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as target:
        for op in ("inspect", "nonsense", "forget"):
            target.write(encode_frame({"op": op, "directory": str(asked.directory)}))
    answers_in, answers_out = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as source, os.fdopen(answers_out, "wb") as target:
        serve(asked.worker, source, target)
    with os.fdopen(answers_in, "rb") as source:
        answers = list(FrameDecoder().feed(source.read()))
    assert [frame.header["ok"] for frame in answers] == [True, False, True]


def test_views_name_the_state_of_their_seq(asked: Asked) -> None:
    asked.apply(0)
    lengths = []
    for seq in asked.views():
        view = view_files.read_view(asked.hg_directory, Seq(seq))
        assert view is not None
        lengths.append(view.changelog_length)
    assert lengths == [0, 1, 2, 3]
