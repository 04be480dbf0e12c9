"""A failed transaction is undone from its journal, whatever Mercurial could still write."""

import errno
from pathlib import Path
from typing import Any

import pytest

from hgfleet.hgext import journal
from tests.support.local_copies import Fleet, changing, commit, files_of, store_of


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet.make(tmp_path)
    commit(fleet.repo, "first", files={"file": b"1\n"})
    return fleet


class FullDisk:
    """A file that can no longer be written: what is buffered cannot be flushed either."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _fail(self, *_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write = flush = seek = _fail

    def close(self) -> None:
        self._file.close()
        self._fail()


def test_a_transaction_whose_journal_cannot_be_flushed_is_undone_at_once(fleet: Fleet) -> None:
    before = files_of(fleet.primary)

    def fill() -> None:
        with changing(fleet.repo) as tr:
            commit(fleet.repo, "second", files={"file": b"2\n", "new": b"n\n"})
            tr._file, tr._backupsfile = FullDisk(tr._file), FullDisk(tr._backupsfile)
            tr.add(b"data/third.i", 0)

    with pytest.raises(OSError, match="No space left"):
        fill()

    assert files_of(fleet.primary) == before
    assert not (store_of(fleet.primary) / "journal").exists()
    commit(fleet.repo, "next")
    fleet.check_replicas()


def test_a_journal_that_cannot_be_undone_now_is_undone_by_the_next(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(fleet.primary)

    def fail(*_args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def change() -> None:
        with changing(fleet.repo):
            commit(fleet.repo, "second")
            monkeypatch.setattr(journal, "roll_back", fail)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change()
    monkeypatch.undo()
    assert (store_of(fleet.primary) / "journal").exists()

    assert fleet.bring_up_to_date().problem is None

    assert files_of(fleet.primary) == before


@pytest.mark.parametrize("torn", [b"data/other.i", b"data/other.i\x001"])
def test_a_torn_last_line_announces_nothing_that_was_begun(fleet: Fleet, torn: bytes) -> None:
    store = store_of(fleet.primary)
    before = files_of(fleet.primary)
    size = (store / "00changelog.i").stat().st_size
    (store / "journal").write_bytes(b"00changelog.i\x00%d\n" % size + torn)
    (store / "journal.backupfiles").write_bytes(b"2\nplain\x00bookmarks")
    (store / "data" / "other.i").write_bytes(b"whole")
    with (store / "00changelog.i").open("ab") as file:
        file.write(b"torn")

    assert fleet.bring_up_to_date().problem is None

    assert (store / "data" / "other.i").read_bytes() == b"whole"
    (store / "data" / "other.i").unlink()
    assert files_of(fleet.primary) == before
