"""What earlier releases wrote into the log still applies, to the same state."""

from pathlib import Path

import pytest

from hgfleet.hgext import state_digest
from hgfleet.model.message import FORMAT, Kind, decode_message
from tests.support.kept_log import FIXTURES, read_kept_log, write_kept_log
from tests.support.local_copies import REPOSITORY, Fleet
from tests.support.memory_agent import MemoryAgent

KEPT = sorted(FIXTURES.glob("log-format-*.json"))


def replayed_digest(path: Path, directory: Path) -> str:
    kept = read_kept_log(path)
    fleet = Fleet.make(directory)
    fleet.agent = MemoryAgent(directory / "kept-blobs")
    fleet.agent.messages[REPOSITORY] = [decode_message(wire) for wire in kept.wires]
    for name, blob in kept.blob_by_sha256.items():
        (fleet.agent.blobs / name).write_bytes(blob)
    copy = fleet.replica()
    fleet.replay(copy)
    return state_digest.full_digest(copy.repo)


def test_a_log_of_every_format_so_far_is_kept() -> None:
    assert [path.name for path in KEPT] == [f"log-format-{number}.json" for number in range(1, FORMAT + 1)]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_log_gives_the_state_that_it_gave_when_it_was_written(path: Path, tmp_path: Path) -> None:
    assert replayed_digest(path, tmp_path) == read_kept_log(path).state_digest


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_log_has_everything_that_a_message_of_its_format_can_carry(path: Path) -> None:
    messages = [decode_message(wire) for wire in read_kept_log(path).wires]
    assert {message.envelope.kind for message in messages} == {
        Kind.CREATED,
        Kind.PUSH,
        Kind.SETTINGS,
        Kind.VOID,
    }
    assert any(not message.envelope.payload.is_inline for message in messages)
    assert any(message.payload for message in messages)


def test_a_log_that_is_written_now_is_read_like_a_kept_one(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    write_kept_log(path, tmp_path / "made")
    assert replayed_digest(path, tmp_path / "read") == read_kept_log(path).state_digest


def test_a_kept_log_is_not_written_again(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_kept_log(KEPT[0], tmp_path)
