"""The pushlog's reader: pushes by id, by revision and by date, cut where a view ends."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgfleet.errors import PoisonError
from hgfleet.hgext import pushlog
from hgfleet.hgext.pushlog import RECORD_BYTES, Push, Pushlog, format_rows
from hgfleet.model.ids import PushId, Seq


def write(store: Path, pushes: list[Push]) -> None:
    records, names = format_rows(store, pushes)
    for name, data in ((pushlog.NAME, records), (pushlog.PUSHERS_NAME, names)):
        with (store / name).open("ab") as file:
            file.write(data)


def make_pushes(sizes: list[int], first_id: int = 1, first_rev: int = 0) -> list[Push]:
    pushes = []
    for push_id, size in enumerate(sizes, first_id):
        pusher = f"pusher {push_id % 3} ä"
        pushes.append(
            Push(PushId(push_id), Seq(2 * push_id), 1000.5 * push_id, first_rev, first_rev + size, pusher)
        )
        first_rev += size
    return pushes


@given(st.lists(st.integers(1, 5), max_size=12), st.integers(0, 12))
def test_every_push_is_found_by_id_by_revision_and_by_date(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], split: int
) -> None:
    store = tmp_path_factory.mktemp("store")
    pushes = make_pushes(sizes)
    write(store, pushes[:split])
    write(store, pushes[split:])

    with Pushlog(store) as log:
        assert len(log) == log.last_id == len(pushes)
        assert list(log.range(1, len(log))) == list(log.range(-5, 999)) == pushes
        assert [log.push(push.push_id) for push in pushes] == pushes
        assert log.push(0) is None
        assert log.push(len(pushes) + 1) is None
        for push in pushes:
            for rev in range(push.first_rev, push.end_rev):
                assert log.push_of_rev(rev) == push
            assert log.first_id_at_or_after(push.at) == push.push_id
            assert log.first_id_at_or_after(push.at + 0.1) == push.push_id + 1
        assert log.push_of_rev(sum(sizes)) is None
        assert log.push_of_rev(-1) is None
    assert pushlog.count_pushes(store) == len(pushes)


def test_a_reader_sees_whole_records_up_to_its_limit(tmp_path: Path) -> None:
    write(tmp_path, make_pushes([2, 3, 1]))
    for limit, count in ((0, 0), (1, 0), (RECORD_BYTES, 1), (2 * RECORD_BYTES + 5, 2), (10**6, 3)):
        with Pushlog(tmp_path, limit) as log:
            assert len(log) == count
            assert log.size_bytes == count * RECORD_BYTES
            assert log.push_of_rev(5) == (log.push(3) if count == 3 else None)


def test_a_repository_without_pushes_has_an_empty_pushlog(tmp_path: Path) -> None:
    with Pushlog(tmp_path) as log:
        assert len(log) == 0
        assert list(log.range(1, 5)) == []
        assert log.push_of_rev(0) is None
        assert log.first_id_at_or_after(0) == 1


def test_a_pusher_that_the_list_lacks_is_damage(tmp_path: Path) -> None:
    write(tmp_path, make_pushes([1]))
    (tmp_path / pushlog.PUSHERS_NAME).write_bytes(b"")
    with Pushlog(tmp_path) as log, pytest.raises(PoisonError, match="lacks"):
        log.push(1)


def test_names_are_kept_once(tmp_path: Path) -> None:
    write(tmp_path, make_pushes([1] * 7))
    assert len(pushlog.read_pushers(tmp_path)) == 3
