"""serving.json: believed only while its lease lasts, and never after a reboot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hgfleet.adapters.serving_file import read_serving, write_serving
from hgfleet.model.fleet_records import Stage
from hgfleet.runtime import clock


@pytest.mark.parametrize(
    ("stage", "lease_seconds", "is_ready"),
    [
        (Stage.SERVING, 60.0, True),
        (Stage.SERVING, -0.01, False),
        (Stage.JOINING, 60.0, False),
        (Stage.DRAINING, 60.0, False),
    ],
)
def test_a_mirror_is_ready_while_it_serves_and_its_lease_lasts(
    tmp_path: Path, stage: Stage, lease_seconds: float, is_ready: bool
) -> None:
    write_serving(tmp_path / "serving.json", stage, 7, clock.boottime() + lease_seconds)
    serving = read_serving(tmp_path / "serving.json")
    assert serving is not None
    assert (serving.stage, serving.incarnation, serving.is_ready()) == (stage, 7, is_ready)


@pytest.mark.parametrize(
    ("stage", "has_served", "answers", "answers_last"),
    [
        (Stage.SERVING, True, True, True),
        (Stage.JOINING, True, False, True),
        (Stage.JOINING, False, False, False),
        (Stage.DRAINING, True, False, False),
    ],
)
def test_a_mirror_that_joins_again_is_a_last_resort_and_one_that_never_served_is_none(
    tmp_path: Path, *, stage: Stage, has_served: bool, answers: bool, answers_last: bool
) -> None:
    write_serving(tmp_path / "serving.json", stage, 7, 0.0, has_served=has_served)
    serving = read_serving(tmp_path / "serving.json")
    assert serving is not None
    assert serving.may_answer(is_last_resort=False) == answers
    assert serving.may_answer(is_last_resort=True) == answers_last


def test_a_lease_from_before_a_reboot_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    write_serving(path, Stage.SERVING, 1, clock.boottime() + 1_000_000)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot_id": "another"}))
    serving = read_serving(path)
    assert serving is not None
    assert not serving.is_ready()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": "serving"}', b'{"stage": "odd"}'])
def test_a_missing_or_damaged_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    assert read_serving(tmp_path / "serving.json") is None
    (tmp_path / "serving.json").write_bytes(content)
    assert read_serving(tmp_path / "serving.json") is None
